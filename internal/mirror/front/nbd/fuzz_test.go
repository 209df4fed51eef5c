package nbd

import (
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front/fronttest"
)

// connection returns both ends of one.
func connection(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return unixConn(t, fds[0]), unixConn(t, fds[1])
}

// unixConn makes a connection of a descriptor, which it closes.
func unixConn(t *testing.T, fd int) *net.UnixConn {
	t.Helper()
	file := os.NewFile(uintptr(fd), "end")
	defer func() { _ = file.Close() }()
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*net.UnixConn)
}

// bytesOf puts together a client's side of a conversation.
func bytesOf(parts ...any) []byte {
	var b bytes.Buffer
	for _, p := range parts {
		if s, ok := p.(string); ok {
			p = []byte(s)
		}
		_ = binary.Write(&b, binary.BigEndian, p) // a bytes.Buffer takes everything
	}
	return b.Bytes()
}

// Whatever a client sends, the server ends its connection in time, does not
// panic, and asks the device for nothing that the contract forbids.
func FuzzServer(f *testing.F) {
	hello := bytesOf(uint32(fixedNewstyle | noZeroes))
	goes := bytesOf(hello, "IHAVEOPT", uint32(optGo), uint32(len(wish("md1"))), wish("md1"))
	request := func(flags, command uint16, offset uint64, length uint32) []byte {
		return bytesOf(uint32(requestMagic), flags, command, uint64(1), offset, length)
	}
	f.Add(hello)
	f.Add(bytesOf(hello, "IHAVEOPT", uint32(optList), uint32(0)))
	f.Add(bytesOf(hello, "IHAVEOPT", uint32(optExportName), uint32(0)))
	f.Add(bytesOf(goes, request(0, cmdRead, 0, 4096), request(0, cmdFlush, 0, 0)))
	f.Add(bytesOf(goes, request(flagFUA, cmdWrite, 512, 512), make([]byte, 512), request(0, cmdDisconnect, 0, 0)))
	f.Add(bytesOf(goes, request(flagNoHole|flagFUA, cmdWriteZeroes, 0, 1<<20), request(flagFUA, cmdTrim, 1<<19, 1<<19)))
	f.Add(bytesOf(goes, request(0, cmdRead, 1<<63, 1<<31), request(0, cmdRead, 1<<64-512, 512)))
	log := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, said []byte) {
		dev := fronttest.New(1<<20, 512)
		s := NewServer("md1", dev, log)
		ours, theirs := connection(t)
		ended := make(chan struct{})
		go func() { s.client(ours); close(ended) }()
		go func() { _, _ = theirs.Write(said); _ = theirs.CloseWrite() }()
		if err := theirs.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, theirs)
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("the server did not end the connection")
		}
		_ = theirs.Close()
		dev.Check(t)
	})
}
