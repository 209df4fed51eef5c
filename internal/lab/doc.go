// Package lab runs a whole installation on one machine: switches, hosts,
// guests and clients as namespaces.
//
// A lab is one supervisor process and one init process per machine. Nothing
// of it has a name outside the lab's directory and its cgroup: network
// namespaces, mounts and links belong to these processes and end with them.
// The supervisor's own network namespace holds the physical switches
// (bridges); each machine has a mount, UTS, PID, IPC and network namespace,
// made anew at each boot. Machines die with the supervisor. A disk of a machine
// is a file in the lab's directory, and a loop device as long as it is on.
//
// Start makes a lab, Open finds a running one, Down removes one in whatever
// state it was left.
package lab
