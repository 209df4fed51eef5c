#!/bin/sh
# Runs on the host before the final action of a NIC monitor: a network of this
# machine is broken, which the guests cannot see. Asks their cluster to move
# the business to the guest on the other machine.

ulimit -s unlimited

# A resource of the group that has to move.
RESOURCE="exec"
# Every guest of the cluster; the group moves once, wherever it is active.
GUESTS="10.2.102.51,10.2.102.52"

/usr/sbin/clplogcmd -m "Send Failover Request to CLP-1" -l warn
/usr/sbin/clptrnreq -t EXEC_SCRIPT -h $GUESTS -s failover_message.sh
/opt/nec/clusterpro/bin/clptrnreq -t GRP_FAILOVER -r $RESOURCE -h $GUESTS

exit 0
