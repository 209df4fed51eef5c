#!/bin/bash
# Starts the business: an Apache of its own (Debian: apache2-bin) that answers
# on port 80 with the name of this node. Its documents are below DATA if that is
# mounted, as a mirror disk of the group is when this script runs. Ends with 0
# when it answers, also if it did so before; with 1 when it does not within LIMIT
# seconds. stop.sh stops it.

NODE=$(hostname)
RUN=/run/tasuki-apache/$NODE
DATA=/data
DOCUMENTS=$RUN/htdocs
mountpoint -q "$DATA" && DOCUMENTS=$DATA/htdocs
PORT=80
LIMIT=30

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

running() {
	[ -s "$RUN/apache2.pid" ] && grep -qsF "$RUN/apache2.conf" "/proc/$(cat "$RUN/apache2.pid")/cmdline"
}

if running && answers; then
	echo "apache runs already on $NODE"
	exit 0
fi
if answers; then
	echo "something else answers on port $PORT of $NODE" >&2
	exit 1
fi

mkdir -p "$RUN" "$DOCUMENTS" || exit 1
chmod 755 /run/tasuki-apache "$RUN" "$DOCUMENTS"
echo "$NODE" >"$DOCUMENTS/index.html" || exit 1
cat >"$RUN/apache2.conf" <<END
ServerRoot $RUN
PidFile $RUN/apache2.pid
Listen $PORT
ServerName localhost
User www-data
Group www-data
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
StartServers 1
GracefulShutdownTimeout 5
DocumentRoot $DOCUMENTS
DirectoryIndex index.html
ErrorLog $RUN/error.log
DefaultRuntimeDir $RUN
END

if ! running; then
	rm -f "$RUN/apache2.pid"
	/usr/sbin/apache2 -f "$RUN/apache2.conf" -k start || exit 1
fi

end=$((SECONDS + LIMIT))
until answers; do
	if [ $SECONDS -ge $end ]; then
		echo "apache does not answer on $NODE after $LIMIT s, see $RUN/error.log" >&2
		exit 1
	fi
	sleep 0.05
done
echo "apache answers on $NODE"
