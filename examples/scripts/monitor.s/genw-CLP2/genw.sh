#!/bin/sh
# Checks one guest from its host: it must answer to ping on its public address.
# Ends with 0 when the guest is well; any other code is a fault.

GUEST="10.2.102.52"

for try in 1 2 3; do
	if ping -c 1 -W 2 "$GUEST" >/dev/null 2>&1; then
		exit 0
	fi
done
echo "guest $GUEST does not answer to ping"
exit 1
