"""The best figure of any peer, by the figure's name in the report.

Measured on one machine with 2 cores, one driver for all, each beside the floors of the same run:
Daytona's own daemon v0.190 and envd (both Go), ttyd (C), terminado (Python). "x" is the ratio to
the floor of that run; in brackets is the highest that was ever seen of a peer. The absolute figures
are those of that machine: compare the ratios.
"""

from typing import Final

PEERS: Final = {
    "execute `true`, p50": "Daytona 4.7 ms, x3.8 (3.6 ms, x2.9)",
    "execute `true`, p99": "Daytona 6.6 ms",
    "execute a second, 1 client": "Daytona 228, x0.29",
    "execute a second, 8 clients": "Daytona 469 (490)",
    "execute a second, 32 clients": "Daytona 461",
    "output of 50 MB": "envd 185 MB/s (196), x0.09",
    "keystroke echo, p50": "ttyd 0.081 ms, x1.25; Daytona 0.202, x3.1",
    "keystroke echo, p99": "ttyd 0.20 ms; envd 0.85",
    "one client, 100 MB": "envd 80 MB/s, x0.79 (Daytona 81, envd 85: x0.84)",
    "ten clients, 20 MB each": "envd 276 MB/s together (330)",
    "ten clients : one client": "Daytona 3.9; envd 3.5",
    "echo among idle sessions, p50": "ttyd x0.98; Daytona x0.97; envd x1.12 (200 sessions)",
    "CPU while idle": "Daytona, envd, terminado 0; ttyd 2 % (200 sessions)",
    "memory of an attached session": "ttyd 16 KiB; terminado 40; envd 117; Daytona 218",
}
