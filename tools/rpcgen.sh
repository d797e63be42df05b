#!/bin/sh
# rpcgen KIND OUTPUT INPUT: it does not write over a file, so the old one goes first.
set -eu
rm -f "$2"
exec rpcgen "$1" -o "$2" "$3"
