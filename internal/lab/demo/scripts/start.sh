#!/bin/bash
# Starts the business of the demo where it has a mirror disk on /data: the Apache
# of the examples, and beside it the ledger, which acknowledges what it has
# written to the disk. Ends with 0 when both answer, also if they did so before.
# stop.sh stops them.

NODE=$(hostname)
RUN=/run/tasuki-ledger
PORT=8090
LIMIT=10

running() {
	[ -s "$RUN/pid" ] && tr '\0' ' ' 2>/dev/null <"/proc/$(cat "$RUN/pid")/cmdline" | grep -qs ' lab ledger '
}

answers() {
	local status
	{
		exec 3<>"/dev/tcp/127.0.0.1/$PORT" || return 1
		printf 'GET / HTTP/1.0\r\n\r\n' >&3
		read -r -t 2 _ status _ <&3
		exec 3>&-
	} 2>/dev/null
	[ "$status" = 200 ]
}

"${0%/*}/apache-start.sh" || exit 1
mkdir -p "$RUN" || exit 1
if ! running; then
	setsid /usr/sbin/tasuki lab ledger /data/journal ":$PORT" </dev/null >"$RUN/log" 2>&1 &
	echo $! >"$RUN/pid"
fi
end=$((SECONDS + LIMIT))
until answers; do
	if [ $SECONDS -ge $end ] || ! [ -d "/proc/$(cat "$RUN/pid")" ]; then
		echo "the ledger does not answer on $NODE: $(cat "$RUN/log")" >&2
		exit 1
	fi
	sleep 0.02
done
echo "the ledger answers on $NODE"
