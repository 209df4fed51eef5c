// Package demo runs the reference scenario in a lab and tells what happened: a
// client asks the service all the time, a cable of a host is pulled, the host
// asks the guest cluster, and the group moves. It measures how long the client
// was without the service, and where that time went.
package demo
