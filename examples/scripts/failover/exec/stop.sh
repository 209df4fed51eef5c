#!/bin/bash
# Stops the Apache of start.sh. Requests under way may end for LIMIT seconds,
# then it is terminated, and killed if need be. Ends with 0 when it is surely
# gone, also if it did not run; with 1 when even killing did not help.

NODE=$(hostname)
RUN=/run/tasuki-apache/$NODE
PORT=80
LIMIT=5
PID=$(cat "$RUN/apache2.pid" 2>/dev/null)

# running says whether any process of this server lives, children too, in our
# network. The brackets keep grep from finding itself.
running() {
	local file
	for file in $(grep -ls "$RUN/[a]pache2.conf" /proc/[0-9]*/cmdline); do
		[ "${file%cmdline}ns/net" -ef /proc/self/ns/net ] && return 0
	done
	return 1
}

# busy says whether a client is still connected.
busy() {
	grep -qs ":$(printf %04X "$PORT") [0-9A-F]*:[0-9A-F]* 01 " /proc/net/tcp /proc/net/tcp6
}

# gone SECONDS waits for the end of the server.
gone() {
	local end=$((SECONDS + $1))
	while running; do
		[ $SECONDS -ge $end ] && return 1
		sleep 0.02
	done
}

if [ -n "$PID" ] && running; then
	kill -WINCH "$PID" # no new requests
	end=$((SECONDS + LIMIT))
	while busy && [ $SECONDS -lt $end ]; do
		sleep 0.02
	done
	kill -TERM "$PID"
	if ! gone 5; then
		kill -KILL -- "-$PID"
		if ! gone 5; then
			echo "apache cannot be killed on $NODE" >&2
			exit 1
		fi
	fi
fi
rm -f "$RUN/apache2.pid"
echo "apache is stopped on $NODE"
