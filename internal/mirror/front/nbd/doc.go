// Package nbd offers a front.Device by the NBD protocol: to the kernel, which
// makes a block device of it (/dev/nbdN), and to programs on this machine, over a
// unix socket.
//
// The protocol is the fixed newstyle one of doc/proto.md in the repository
// NetworkBlockDevice/nbd, with simple replies. A kernel is handed its connection
// over generic netlink (include/uapi/linux/nbd-netlink.h) and leaves the
// handshake out; see Attach.
//
//	handshake.go  what a program and the server agree on first
//	session.go    requests in, replies out: one connection
//	call.go       one request, and how it is cut into pieces
//	outbox.go     replies to the socket, by whoever has one
//	server.go     the unix socket
//	kernel.go     the front end: attach, resume, detach
//	netlink.go    the messages to the kernel
package nbd
