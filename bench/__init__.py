"""Benchmarks: what procd does in a second, beside what the machine allows.

`python -m bench [NAME...] [--json FILE] [--quick]` starts the real daemon on a free loopback port
and drives it over raw sockets. Each figure is taken in several rounds that alternate with those of
its floor, a program that does the least that could be done, and is shown as a ratio to it: the
figure itself varies by machine and by the hour, the ratio much less. Nothing is asserted.
"""
