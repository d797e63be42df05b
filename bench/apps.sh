#!/bin/bash
# The application set that speed is judged by: prints a row "name seconds s" for each.
#
#   bench/apps.sh GUESTBENCH [NAME...]
#
# Runs natively (in a chroot of the same packages) and in a guest; all input is made here, by
# `guestbench -g`, in a folder in memory.  A row is the shorter of two runs.
set -eu
shopt -s inherit_errexit # an application that fails ends the run
guestbench=$1
shift
wanted=" $* "
work=$(mktemp -d "${TMPDIR:-/tmp}/apps.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
export LC_ALL=C

"$guestbench" -g 12000000 >text
gzip -6 -k text
xz -1 -k text
zstd -q -3 -k text

cat >nbody.py <<'PY'
import math
SUN = 4 * math.pi ** 2
bodies = [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, SUN],
          [4.84, -1.16, -0.10, 0.61, 2.81, -0.02, 9.5e-4 * SUN],
          [8.34, 4.12, -0.40, -1.01, 1.82, 0.008, 2.8e-4 * SUN],
          [12.89, -15.11, -0.22, 1.08, 0.86, -0.01, 4.3e-5 * SUN],
          [15.37, -25.9, 0.17, 0.97, 0.59, -0.03, 5.1e-5 * SUN]]
pairs = [(a, b) for i, a in enumerate(bodies) for b in bodies[i + 1:]]
for _ in range(14000):
    for a, b in pairs:
        x, y, z = a[0] - b[0], a[1] - b[1], a[2] - b[2]
        m = 0.01 / (x * x + y * y + z * z) ** 1.5
        p, q = b[6] * m, a[6] * m
        a[3] -= x * p; a[4] -= y * p; a[5] -= z * p
        b[3] += x * q; b[4] += y * q; b[5] += z * q
    for b in bodies:
        b[0] += 0.01 * b[3]; b[1] += 0.01 * b[4]; b[2] += 0.01 * b[5]
print("%.6f" % bodies[1][0])
PY

cat >fannkuch.pl <<'PERL'
my $n = 8; my @p = (0 .. $n - 1); my @c = (0) x $n; my ($most, $i) = (0, 0);
sub flips { my @q = @_; my $f = 0; while (my $k = $q[0]) { @q[0 .. $k] = reverse @q[0 .. $k]; $f++ } $f }
$most = flips(@p);
while ($i < $n) {
    if ($c[$i] < $i) {
        my $k = $i % 2 ? $c[$i] : 0;
        @p[$k, $i] = @p[$i, $k];
        my $f = flips(@p); $most = $f if $f > $most;
        $c[$i]++; $i = 0;
    } else { $c[$i++] = 0 }
}
print "$most\n";
PERL

cat >words.pl <<'PERL'
my %n; while (<>) { $n{$_}++ for split }
my @top = sort { $n{$b} <=> $n{$a} || $a cmp $b } keys %n;
print "$_ $n{$_}\n" for @top[0 .. 9];
PERL

cat >all.lua <<'LUA'
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
local s, t = 12345, {}
for i = 1, 120000 do s = (s * 1103515245 + 12345) % 2147483648; t[i] = s end
table.sort(t)
local parts = {}
for i = 1, 60000 do parts[#parts + 1] = string.format("%d:%s", i, tostring(t[i]):rep(2)) end
local text = table.concat(parts, ",")
local n = 0
for w in text:gmatch("%d+:") do n = n + #w end
print(fib(27), n, #text)
LUA

cat >all.sql <<'SQL'
create table t(id integer primary key, k integer, v text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 120000)
insert into t select i, (i * 7919) % 100003, 'value ' || i from n;
create index t_k on t(k);
select count(*), sum(length(v)) from t where k between 1000 and 60000;
select k % 97 as g, count(*), max(v) from t group by g order by g limit 5;
update t set v = v || '!' where k % 3 = 0;
delete from t where k % 5 = 0;
select count(*), sum(k) from t;
SQL

dash_loop() { dash -c 'i=0; s=0; while [ $i -lt 250000 ]; do i=$((i + 1)); s=$(((s * 31 + i) % 65521)); done; echo $s'; }
dash_forks() { dash -c 'i=0; while [ $i -lt 250 ]; do i=$((i + 1)); /bin/true; x=$(echo $i); done'; }
py_nbody() { python3 nbody.py; }
py_start() { for i in 1 2 3 4 5 6 7 8 9 10 11 12; do python3 -c 'import re, collections, functools'; done; }
perl_fannkuch() { perl fannkuch.pl; }
perl_words() { perl words.pl text; }
sqlite() { sqlite3 :memory: <all.sql; }
lua() { lua5.4 all.lua; }
gzip_pack() { head -c 8000000 text | gzip -6; }
gzip_unpack() { for i in 1 2 3 4; do gzip -dc text.gz; done; }
xz_pack() { head -c 3000000 text | xz -2; }
xz_unpack() { for i in 1 2; do xz -dc text.xz; done; }
zstd_pack() { for i in 1 2 3 4; do zstd -q -3 -c text; done; }
zstd_unpack() { for i in 1 2 3 4 5 6 7 8 9 10; do zstd -q -dc text.zst; done; }
sort_text() { sort --parallel=1 text; }
sha256() { for i in 1 2 3 4 5 6; do sha256sum text; done; }
cp_files() { for i in 1 2 3 4 5 6 7 8; do cp text copy.$i; done; rm -f copy.*; }

# Seconds of one run of $1.
run_once() {
    local t0=$EPOCHREALTIME t1
    "$1" >out
    t1=$EPOCHREALTIME
    t0=${t0/./} t1=${t1/./}
    echo $((t1 - t0))
}

for app in dash_loop dash_forks py_nbody py_start perl_fannkuch perl_words sqlite lua gzip_pack \
    gzip_unpack xz_pack xz_unpack zstd_pack zstd_unpack sort_text sha256 cp_files; do
    [ "$wanted" = "  " ] || [[ "$wanted" == *" $app "* ]] || continue
    a=$(run_once "$app")
    b=$(run_once "$app")
    us=$((a < b ? a : b))
    printf '%-16s %d.%06d s\n' "$app" $((us / 1000000)) $((us % 1000000))
done
