#!/bin/bash
# Stops the ledger and the Apache of start.sh. Ends with 0 when both are surely
# gone, so that the disk can be unmounted; with 1 when even killing did not help.

NODE=$(hostname)
RUN=/run/tasuki-ledger
PID=$(cat "$RUN/pid" 2>/dev/null)

# running is true until the last thread is gone: one that waits for a disk outlives
# the process, and holds the mount point.
running() {
	[ -n "$PID" ] && grep -qsx tasuki "/proc/$PID/comm"
}

# gone SECONDS waits for the end of the ledger.
gone() {
	local end=$((SECONDS + $1))
	while running; do
		[ $SECONDS -ge $end ] && return 1
		sleep 0.02
	done
}

if running; then
	kill -TERM "$PID"
	if ! gone 7; then
		kill -KILL "$PID"
		if ! gone 5; then
			echo "the ledger cannot be killed on $NODE" >&2
			exit 1
		fi
	fi
fi
rm -f "$RUN/pid"
echo "the ledger is stopped on $NODE"
"${0%/*}/apache-stop.sh"
