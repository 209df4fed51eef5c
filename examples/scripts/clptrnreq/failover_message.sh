#!/bin/bash
# Runs on every guest when the host asks for it.

/usr/sbin/clplogcmd -m "Receive Failover Request from ESX" -l warn
