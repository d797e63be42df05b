/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/rpc/packet.h"

#include "base/bytes.h"

#include <sys/socket.h>
#include <unistd.h>

void packet_header_read(const uint8_t at[PACKET_HEAD], struct packet_header *h)
{
    h->program = be32_at(at + 4);
    h->version = be32_at(at + 8);
    h->procedure = (int32_t)be32_at(at + 12);
    h->type = be32_at(at + 16);
    h->serial = be32_at(at + 20);
    h->status = be32_at(at + 24);
}

void packet_header_write(uint8_t at[PACKET_HEAD], const struct packet_header *h, size_t length)
{
    be32_put(at, (uint32_t)length);
    be32_put(at + 4, h->program);
    be32_put(at + 8, h->version);
    be32_put(at + 12, (uint32_t)h->procedure);
    be32_put(at + 16, h->type);
    be32_put(at + 20, h->serial);
    be32_put(at + 24, h->status);
}

struct packet *packet_new(const struct packet_header *h, const void *body, size_t n)
{
    struct packet *p = g_try_malloc(sizeof(*p) + PACKET_HEAD + n);
    if (!p) {
        return NULL;
    }
    *p = (struct packet){.length = PACKET_HEAD + n};
    packet_header_write(p->data, h, p->length);
    if (body && n) {
        memcpy(p->data + PACKET_HEAD, body, n);
    }
    return p;
}

struct packet *packet_encode(const struct packet_header *h, xdrproc_t codec, const void *value,
                             unsigned nfds)
{
    size_t front = h->type == PACKET_CALL_FDS || h->type == PACKET_REPLY_FDS ? 4 : 0;
    /* Sizes are only known afterwards: most bodies are small, few are very large. */
    for (size_t room = 1024; room <= PACKET_MAX; room *= 8) {
        struct packet *p = packet_new(h, NULL, room);
        XDR xdr;
        if (!p) {
            return NULL;
        }
        xdrmem_create(&xdr, (char *)p->data + PACKET_HEAD + front, (unsigned)(room - front),
                      XDR_ENCODE);
        if (codec(&xdr, (void *)value)) {
            p->length = PACKET_HEAD + front + xdr_getpos(&xdr);
            if (front) {
                be32_put(p->data + PACKET_HEAD, nfds);
            }
            be32_put(p->data, (uint32_t)p->length);
            xdr_destroy(&xdr);
            struct packet *fit = g_realloc(p, sizeof(*p) + p->length);
            return fit;
        }
        xdr_destroy(&xdr);
        packet_free(p);
    }
    return NULL;
}

void packet_free(struct packet *p)
{
    if (p) {
        for (unsigned i = 0; i < p->nfds; i++) {
            close(p->fds[i]);
        }
        g_free(p->fds);
        g_free(p);
    }
}

unsigned packet_keep_fds(struct msghdr *m, int fds[PACKET_FDS_MAX], unsigned n)
{
    for (struct cmsghdr *cm = CMSG_FIRSTHDR(m); cm; cm = CMSG_NXTHDR(m, cm)) {
        if (cm->cmsg_level == SOL_SOCKET && cm->cmsg_type == SCM_RIGHTS) {
            size_t count = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (size_t i = 0; i < count; i++) {
                int fd;
                memcpy(&fd, CMSG_DATA(cm) + i * sizeof(int), sizeof(fd));
                if (n < PACKET_FDS_MAX) {
                    fds[n++] = fd;
                } else {
                    close(fd);
                }
            }
        }
    }
    return n;
}

bool packet_decode(const uint8_t *body, size_t n, xdrproc_t codec, void *out, size_t size)
{
    XDR xdr;
    memset(out, 0, size);
    xdrmem_create(&xdr, (char *)body, (unsigned)n, XDR_DECODE);
    bool whole = codec(&xdr, out) && xdr_getpos(&xdr) == n;
    xdr_destroy(&xdr);
    if (!whole) {
        xdr_free(codec, out);
    }
    return whole;
}

bool_t xdr_rpc_none(XDR *xdr, rpc_none *value)
{
    (void)xdr, (void)value;
    return TRUE;
}
