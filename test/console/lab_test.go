package console_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tasuki-ha/tasuki/internal/lab"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

// TestLab signs in, watches the group move after a pull, reads why, stops, starts
// and moves it, and changes the cluster file, all of it through the console.
func TestLab(t *testing.T) {
	need(t)
	l := up(t)
	s := demo.Reference(l, "CLP-1")
	must(t, s.Build(t.Context(), func(string) {}))
	addUser(t, l, "CLP-1", "ann")
	from, err := l.Namespace(t.Context(), "client")
	must(t, err)
	trusted(t, l, from.DialContext)
	do := func(argv []string) error {
		if len(argv) != 3 {
			return fmt.Errorf("%v is no order", argv)
		}
		switch argv[0] {
		case "pull":
			return l.Pull(t.Context(), argv[1], argv[2])
		case "plug":
			return l.Plug(t.Context(), argv[1], argv[2])
		case "enlarge":
			return enlarge(t.Context(), l, argv[1], argv[2])
		case "call":
			return call(t.Context(), from.DialContext, argv[1], argv[2])
		}
		return fmt.Errorf("%v is no order", argv)
	}
	drive(t, "lab.mjs", "PROXY="+proxy(t, from.DialContext), "CONTROL="+control(t, do), "NAME=ann", "PASSWORD="+password,
		"FIRST=https://10.2.102.51:29003", "SECOND=https://10.2.102.52:29003")
}

// enlarge makes the data device of a machine larger, to so many MiB.
func enlarge(ctx context.Context, l *lab.Lab, machine, size string) error {
	mib, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return err
	}
	m, err := l.Machine(ctx, machine)
	if err != nil {
		return err
	}
	for _, d := range m.Disks {
		if d.Name != "sda4" {
			continue
		}
		if err := os.Truncate(d.File, mib<<20); err != nil {
			return err
		}
		if out, err := exec.CommandContext(ctx, "losetup", "-c", d.Device).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	return fmt.Errorf("%s has no data device", machine)
}

// call asks a daemon for the status, as a script does that shows an access token,
// and expects an answer with that HTTP status.
func call(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), token, status string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://10.2.102.52:29002/v1/status", nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	c := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	got, err := c.Do(r)
	if err != nil {
		return err
	}
	defer got.Body.Close()
	if fmt.Sprint(got.StatusCode) != status {
		return fmt.Errorf("the answer is %s, not %s", got.Status, status)
	}
	return nil
}

// trusted checks that who imports the cluster's authority can reach each node, and
// the floating IP, without an exception.
func trusted(t *testing.T, l *lab.Lab, dial func(context.Context, string, string) (net.Conn, error)) {
	t.Helper()
	ca, err := l.Exec(t.Context(), "CLP-1", "cat", "/etc/tasuki/identity/ca.pem")
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ca.Stdout))
	for _, host := range []string{"10.2.102.51", "10.2.102.52", "10.2.102.50"} {
		conn, err := dial(t.Context(), "tcp", net.JoinHostPort(host, "29003"))
		must(t, err)
		defer conn.Close()
		if err := tls.Client(conn, &tls.Config{ServerName: host, RootCAs: roots}).HandshakeContext(t.Context()); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// up starts the lab of the reference scenario with the program as it is built now.
func up(t *testing.T) *lab.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: CI must run the lab tests as root")
		}
		t.Skip("needs root: namespaces")
	}
	dir, err := os.MkdirTemp("/var/tmp", "tasuki-test") // which machines see
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "tasuki")
	c := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/tasuki-ha/tasuki/cmd/tasuki")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	layout, err := lab.Shipped("reference")
	must(t, err)
	l, err := lab.Start(t.Context(), lab.Options{Layout: layout, Name: fmt.Sprintf("web%d", os.Getpid()), Binary: program, Attached: true})
	must(t, err)
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

func addUser(t *testing.T, l *lab.Lab, machine, name string) {
	t.Helper()
	p, err := l.Run(t.Context(), lab.Cmd{Machine: machine, Stdin: strings.NewReader(password + "\n"), Stdout: os.Stderr, Stderr: os.Stderr,
		Argv: []string{"tasuki", "user", "add", name, "--roles", "read,operate,configure,request,fence", "--password-stdin"}})
	must(t, err)
	if code, err := p.Wait(); err != nil || code != 0 {
		t.Fatalf("the user could not be made: %d, %v", code, err)
	}
}
