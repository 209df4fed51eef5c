// Package machine is the inside of one machine of a lab: its init process,
// which builds the machine's file system, reaps, keeps the daemon running and
// serves a control socket.
//
// The supervisor of the lab starts it as pid 1 of new mount, UTS, PID and IPC
// namespaces, in a network namespace whose interfaces stand already, with
//
//	fd 3  Config as JSON, until the end of the pipe
//	fd 4  a pipe for one answer: empty is ready, anything else an error
//	fd 5  the listening control socket (SOCK_SEQPACKET)
//
// A message on the control socket is one JSON object: a Request with its files
// by SCM_RIGHTS, then Replies one way and Signals the other. What was started
// for a caller is killed, with its process group, when the caller goes away.
package machine

// Descriptors that the supervisor hands over.
const (
	FDConfig  = 3
	FDReady   = 4
	FDControl = 5
)

// MaxMessage bounds a message on the control socket, in bytes.
const MaxMessage = 128 << 10

// Config is what init needs to know.
type Config struct {
	Name    string   `json:"name"`            // becomes the host name
	Hosts   string   `json:"hosts"`           // becomes /etc/hosts at the first boot
	Root    string   `json:"root"`            // an empty directory, to build the file system on
	Disk    string   `json:"disk"`            // keeps what the machine writes, over boots
	State   string   `json:"state"`           // is mounted as /var/lib/tasuki; "": no more than a directory there
	Power   string   `json:"power,omitempty"` // a host with guests: the socket of their power switches
	Disks   []Disk   `json:"disks,omitempty"` // become block devices below /dev
	Program string   `json:"program"`         // is mounted as /usr/sbin/tasuki
	Service []string `json:"service"`         // the daemon that runs while Identity exists

	Identity string `json:"identity"` // below /etc/tasuki
}

// Disk is a block device of the real machine under the name that it has here.
type Disk struct {
	Name   string `json:"name"`   // below /dev
	Number uint64 `json:"number"` // of the device, as stat(2) has it
}

// Request is the first message of a connection; exactly one field is set.
type Request struct {
	Exec    *Exec  `json:"exec,omitempty"`    // with three files: stdin, stdout, stderr
	Write   *Write `json:"write,omitempty"`   // with one file: the content, read to its end
	Service string `json:"service,omitempty"` // start, stop, restart, status
}

// Exec runs a program as leader of a new session.
type Exec struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"` // beside the default environment
	Dir  string   `json:"dir,omitempty"` // default /root
}

// Write replaces a file, in one step for readers; missing folders are made.
type Write struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"`
}

// Reply answers. An Exec is answered when the program runs and again when it
// has ended; everything else once.
type Reply struct {
	PID     int      `json:"pid,omitempty"` // within the machine
	Ended   bool     `json:"ended,omitempty"`
	Code    int      `json:"code,omitempty"` // 128 + signal where a signal ended it
	Error   string   `json:"error,omitempty"`
	Service *Service `json:"service,omitempty"`
}

// Signal goes to the process group of a running Exec.
type Signal struct {
	Signal int `json:"signal"`
}

// Service is the state of the daemon.
type Service struct {
	Running bool   `json:"running"`
	PID     int    `json:"pid,omitempty"` // within the machine
	Crashes int    `json:"crashes"`       // since the machine booted
	Why     string `json:"why"`
}
