/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/e1000_tx.h"
#include "guest/device/nic.h"

/*
 * What Intel's gigabit cards share: registers, EEPROM, PHY, receive filter and rings.  A card is
 * a table of rows, most of them E1000_ROWS, and a struct e1000_kind.
 */
enum { MMIO_BYTES = 128 << 10, IO_BYTES = 64, DESC_BYTES = 16 };
enum { CTRL_SLU = 1 << 6, CTRL_RST = 1 << 26, CTRL_VME = 1 << 30 };
#define CTRL_PHY_RST (1u << 31)
enum { CTRL_NO_MASTER = 1 << 2, STATUS_MASTER = 1 << 19 }; /* on PCI Express */
enum { STATUS_LU = 1 << 1, STATUS_ALWAYS = 0x781 };        /* 1000 Mbit/s, full duplex */
#define STATUS_BIT31 0x80000000u
enum {
    EECD_SK = 1,
    EECD_CS = 2,
    EECD_DI = 4,
    EECD_DO = 8,
    EECD_STORED = 0x77,
    EECD_GNT = 0x80,
    EECD_PRESENT = 0x100,
    EECD_LOADED = 0x200, /* on PCI Express */
};
enum { EEPROM_WORDS = 64, EEPROM_SUM = 0xbaba, EEPROM_READ = 6 };
enum {
    ICR_TXDW = 1 << 0,
    ICR_TXQE = 1 << 1,
    ICR_LSC = 1 << 2,
    ICR_RXDMT0 = 1 << 4,
    ICR_RXO = 1 << 6,
    ICR_RXT0 = 1 << 7,
    ICR_MDAC = 1 << 9
};
#define ICR_ASSERTED (1u << 31)
enum {
    RCTL_EN = 1 << 1,
    RCTL_UPE = 1 << 3,
    RCTL_MPE = 1 << 4,
    RCTL_LPE = 1 << 5,
    RCTL_BAM = 1 << 15,
    RCTL_VFE = 1 << 18,
    RCTL_BSEX = 1 << 25,
    RCTL_SECRC = 1 << 26
};
enum {
    TCTL_EN = 1 << 1,
    MDIC_WRITE = 1 << 26,
    MDIC_READ = 1 << 27,
    MDIC_READY = 1 << 28,
    MDIC_ERROR = 1 << 30
};
enum {
    PHY_REGS = 32,
    PHY_CTRL = 0,
    PHY_STATUS = 1,
    PHY_LP = 5,
    PHY_SPECIFIC = 17,
    PHY_PAGED = 16,
    PHY_PAGE = 22
};
enum { PHY_CTRL_LOOPBACK = 1 << 14, PHY_CTRL_RESET = 1 << 15, PHY_CTRL_RESTART = 1 << 9 };
enum { PHY_STATUS_LINK = 1 << 2, PHY_STATUS_DONE = 1 << 5, PHY_SPECIFIC_LINK = 1 << 10 };
enum { RX_DD = 1, RX_EOP = 2, RX_IXSM = 4, RX_VP = 8, RX_TCPCS = 0x20, RX_IPCS = 0x40 };
enum { RXCSUM_IP = 1 << 8, RXCSUM_TCP = 1 << 9 };
enum { TX_RS = 1 << 27, TX_DD = 1, TX_BURST = 512 };
enum { FRAME_MIN = 60, FRAME_MAX = 1518, FCS = 4 };
#define RA_VALID (1u << 31)

/* Arrays of registers, which the table cannot hold. */
enum {
    STATS_AT = 0x4000,
    STATS = 74,
    MTA_AT = 0x5200,
    MTA = 128,
    RA_AT = 0x5400,
    RA = 32,
    VFTA_AT = 0x5600,
    VFTA = 128
};
/* Statistics by their index: (offset - 0x4000) / 4. */
enum stat {
    STAT_MPC = 4,
    STAT_GPRC = 0x74 / 4,
    STAT_BPRC,
    STAT_MPRC,
    STAT_GPTC,
    STAT_GORC = 0x88 / 4,
    STAT_GOTC = 0x90 / 4,
    STAT_RNBC = 0xa0 / 4,
    STAT_TOR = 0xc0 / 4,
    STAT_TOT = 0xc8 / 4,
    STAT_TPR = 0xd0 / 4,
    STAT_TPT
};

struct e1000;
struct e1000_part;
struct e1000_kind {
    const char *name;
    uint16_t phy_id;                          /* low half */
    uint32_t causes;                          /* bits of ICR that there are */
    uint32_t rx_cause, tx_cause, other_cause; /* set beside those of the event; 0: none */
    uint8_t eerd_shift;                       /* where EERD has the address, and */
    uint32_t eerd_done, eecd;                 /* bits that EECD shows always */
    const uint16_t (*nvm)[2];                 /* words and what is there */
    unsigned n_nvm;
    uint8_t mmio_bar, io_bar;
    /* Of the descriptors that receive now: bytes of one, and of all its buffers. */
    void (*rx_shape)(const struct e1000 *s, uint32_t *descriptor, uint32_t *room);
    /* Fills @d, which was read at @at, with @part bytes and writes it back; NULL of the legacy. */
    void (*rx_put)(struct e1000 *s, uint64_t at, const struct e1000_part *part);
    void (*icr_read)(struct e1000 *s); /* after a read; NULL: it clears */
};
struct e1000_part {
    const uint8_t *from;
    size_t real, shown; /* bytes that there are; those beyond are the FCS, which nobody checks */
    uint8_t status;
    uint16_t special;
};

struct e1000 {
    struct pci_device pci; /* first */
    const struct e1000_kind *kind;

    /* State: registers. */
    uint32_t ctrl, eecd, eerd, ctrl_ext, mdic, fcal, fcah, fct, vet, icr, itr, ims, rctl, fcttv,
        txcw, tctl, tipg, ait, ledctl, pba, fcrtl, fcrth, rdbal, rdbah, rdlen, rdh, rdt, rdtr,
        rxdctl, radv, rsrpd, tdbal, tdbah, tdlen, tdh, tdt, tidv, txdctl, tadv, rxcsum, wuc, wufc,
        wus, manc, ioaddr;
    uint32_t stats[STATS], mta[MTA], ra[RA], vfta[VFTA];
    uint16_t phy[PHY_REGS];
    /* The EEPROM's serial wire. */
    uint16_t ee_in, ee_bits;
    uint16_t ee_out; /* bit of the EEPROM that is on the wire */
    uint8_t ee_reading;
    /* The descriptor sequence being gathered: e1000_tx.c. */
    struct e1000_tx tx;
    struct timer throttle; /* armed: no new interrupt before */

    /* Properties. */
    struct netdev *net;
    uint8_t mac[6];
    uint32_t bootindex;

    uint16_t eeprom[EEPROM_WORDS];
    struct region mmio, io;
    struct timer wake, tx_again;
};

static inline struct e1000 *e1000_of(struct device *dev)
{
    return container_of(dev, struct e1000, pci.dev);
}

/* ---- for tables ---- */
bool e1000_start(struct e1000 *s, const struct e1000_kind *kind, GError **error);
void e1000_stop(struct device *dev);
void e1000_reset(struct device *dev);
bool e1000_loaded(struct device *dev, GError **error);
/* INTx, at most as often as ITR allows. */
void e1000_line(struct e1000 *s);
void e1000_raise(struct e1000 *s, uint32_t cause);
void e1000_rx_put(struct e1000 *s, uint64_t at, const struct e1000_part *part);
uint32_t e1000_rx_buffer(const struct e1000 *s);

typedef uint64_t e1000_read_fn(struct device *dev, uint64_t stored);
typedef void e1000_write_fn(struct device *dev, uint64_t old, uint64_t now);
e1000_read_fn e1000_icr_read, e1000_eecd_read, e1000_eerd_read, e1000_status_read;
e1000_write_fn e1000_ctrl_write, e1000_icr_write, e1000_ics_write, e1000_ims_write, e1000_imc_write,
    e1000_mdic_write, e1000_eecd_write, e1000_rx_changed, e1000_tx_changed;

#define E1000_R(field, at, ...) REG(struct e1000, field, .port = at, __VA_ARGS__)
#define E1000_RW(field, at, mask, ...)                                                             \
    E1000_R(field, at, .dir = REG_RW, .writable = mask, __VA_ARGS__)
#define E1000_C(label, at, ...) REG_COMPUTED(label, .port = at, .width = 4, __VA_ARGS__)
#define E1000_A(field)          STATE_ARRAY(struct e1000, field)
#define E1000_ALL               0xffffffff
#define E1000_ROWS                                                                                 \
    PCI_STATE(struct e1000, pci),                                                                  \
        E1000_RW(ctrl, 0x0000, E1000_ALL, .reset = 0x00140240, .on_write = e1000_ctrl_write),      \
        E1000_C("status", 0x0008, .dir = REG_R, .on_read = e1000_status_read),                     \
        E1000_RW(eecd, 0x0010, EECD_STORED, .on_read = e1000_eecd_read,                            \
                 .on_write = e1000_eecd_write),                                                    \
        E1000_RW(eerd, 0x0014, 0xfffd, .on_read = e1000_eerd_read),                                \
        E1000_RW(ctrl_ext, 0x0018, E1000_ALL),                                                     \
        E1000_R(mdic, 0x0020, .dir = REG_R, .reset = MDIC_READY),                                  \
        E1000_C("mdic_command", 0x0020, .dir = REG_W, .on_write = e1000_mdic_write),               \
        E1000_RW(fcal, 0x0028, E1000_ALL), E1000_RW(fcah, 0x002c, 0xffff),                         \
        E1000_RW(fct, 0x0030, 0xffff), E1000_RW(vet, 0x0038, 0xffff, .reset = ETH_TYPE_VLAN),      \
        E1000_R(icr, 0x00c0, .dir = REG_R, .on_read = e1000_icr_read),                             \
        E1000_C("icr_clear", 0x00c0, .dir = REG_W, .on_write = e1000_icr_write),                   \
        E1000_RW(itr, 0x00c4, 0xffff, .help = "units of 256 ns between interrupts"),               \
        E1000_C("ics", 0x00c8, .dir = REG_W, .on_write = e1000_ics_write),                         \
        E1000_RW(ims, 0x00d0, E1000_ALL, .on_write = e1000_ims_write),                             \
        E1000_C("imc", 0x00d8, .dir = REG_W, .on_write = e1000_imc_write),                         \
        E1000_RW(rctl, 0x0100, E1000_ALL, .on_write = e1000_rx_changed),                           \
        E1000_RW(fcttv, 0x0170, 0xffff), E1000_RW(txcw, 0x0178, E1000_ALL),                        \
        E1000_RW(tctl, 0x0400, E1000_ALL, .on_write = e1000_tx_changed),                           \
        E1000_RW(tipg, 0x0410, E1000_ALL), E1000_RW(ait, 0x0458, 0xffff),                          \
        E1000_RW(ledctl, 0x0e00, E1000_ALL, .reset = 0x07061302),                                  \
        E1000_RW(pba, 0x1000, 0xffff, .reset = 0x00100030), E1000_RW(fcrtl, 0x2160, E1000_ALL),    \
        E1000_RW(fcrth, 0x2168, E1000_ALL), E1000_RW(rdbal, 0x2800, 0xfffffff0),                   \
        E1000_RW(rdbah, 0x2804, E1000_ALL), E1000_RW(rdlen, 0x2808, 0xfff80),                      \
        E1000_RW(rdh, 0x2810, 0xffff),                                                             \
        E1000_RW(rdt, 0x2818, 0xffff, .on_write = e1000_rx_changed),                               \
        E1000_RW(rdtr, 0x2820, 0xffff), E1000_RW(rxdctl, 0x2828, E1000_ALL),                       \
        E1000_RW(radv, 0x282c, 0xffff), E1000_RW(rsrpd, 0x2c00, 0xfff),                            \
        E1000_RW(tdbal, 0x3800, 0xfffffff0), E1000_RW(tdbah, 0x3804, E1000_ALL),                   \
        E1000_RW(tdlen, 0x3808, 0xfff80), E1000_RW(tdh, 0x3810, 0xffff),                           \
        E1000_RW(tdt, 0x3818, 0xffff, .on_write = e1000_tx_changed),                               \
        E1000_RW(tidv, 0x3820, 0xffff), E1000_RW(txdctl, 0x3828, E1000_ALL),                       \
        E1000_RW(tadv, 0x382c, 0xffff), E1000_RW(rxcsum, 0x5000, 0x7ff),                           \
        E1000_RW(wuc, 0x5800, E1000_ALL), E1000_RW(wufc, 0x5808, E1000_ALL),                       \
        E1000_RW(wus, 0x5810, E1000_ALL), E1000_RW(manc, 0x5820, E1000_ALL),                       \
        STATE(struct e1000, ioaddr), E1000_A(stats), E1000_A(mta), E1000_A(ra), E1000_A(vfta),     \
        E1000_A(phy), STATE(struct e1000, ee_in), STATE(struct e1000, ee_bits),                    \
        STATE(struct e1000, ee_out), STATE(struct e1000, ee_reading),                              \
        STATE_TIMER(struct e1000, throttle), E1000_TX_STATE(struct e1000, tx)

#define E1000_P(field) offsetof(struct e1000, field)
#define E1000_PROPS                                                                                \
    PCI_PROPS(struct e1000, pci),                                                                  \
        {"netdev", PROP_NETDEV, E1000_P(net), .help = "id of the -netdev"},                        \
        {"mac", PROP_MAC, E1000_P(mac), .help = "52:54:00:12:34:56 and counting if absent"},       \
    {                                                                                              \
        "bootindex", PROP_U32, E1000_P(bootindex), UINT32_MAX                                      \
    }
