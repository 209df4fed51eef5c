package lab

import (
	"bytes"
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestExec(t *testing.T) {
	l := start(t, "single")
	ctx := t.Context()
	for _, c := range []struct {
		argv []string
		want Result
	}{
		{[]string{"sh", "-c", "echo out; echo err >&2; exit 3"}, Result{3, "out\n", "err\n"}},
		{[]string{"sh", "-c", "kill -9 $$"}, Result{137, "", ""}},
		{[]string{"nosuch"}, Result{127, "", "cannot run nosuch: executable file not found in $PATH\n"}},
		{[]string{"/etc/passwd"}, Result{126, "", "cannot run /etc/passwd: permission denied\n"}},
		{[]string{"hostname"}, Result{0, "n1\n", ""}},
		{[]string{"sh", "-c", "pwd; echo $HOME; readlink /proc/1/exe | wc -l"}, Result{0, "/root\n/root\n1\n", ""}},
		{[]string{"sh", "-c", "sleep 60 & echo left it behind"}, Result{0, "left it behind\n", ""}},
	} {
		got, err := l.Exec(ctx, "n1", c.argv...)
		if err != nil {
			t.Errorf("%v: %v", c.argv, err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%v: %s", c.argv, d)
		}
	}
	var out bytes.Buffer
	p, err := l.Run(ctx, Cmd{
		Machine: "n1", Argv: []string{"sh", "-c", "cat; echo $X; pwd"}, Env: []string{"X=y"}, Dir: "/tmp",
		Stdin: strings.NewReader("hello "), Stdout: &out,
	})
	must(t, err)
	if code, err := p.Wait(); code != 0 || err != nil || out.String() != "hello y\n/tmp\n" {
		t.Error(code, err, out.String())
	}
	if _, err := l.Exec(ctx, "n9", "true"); err == nil || !strings.Contains(err.Error(), `no machine "n9"`) {
		t.Error(err)
	}
}

func TestExecEndsWithItsCaller(t *testing.T) {
	l := start(t, "single")
	count := func() string {
		r, err := l.Exec(t.Context(), "n1", "sh", "-c", `for p in /proc/[0-9]*; do tr '\0' ' ' <$p/cmdline; echo; done | grep -c '^sleep 123'`)
		must(t, err)
		return strings.TrimSpace(r.Stdout)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p, err := l.ExecStart(ctx, "n1", "sh", "-c", "sleep 123 & sleep 123")
	must(t, err)
	until(t, "both run", func() bool { return count() == "2" })
	cancel()
	until(t, "both are gone", func() bool { return count() == "0" })
	if _, err := p.Wait(); err == nil {
		t.Error("the end is not known, and yet no error")
	}
	p, err = l.ExecStart(t.Context(), "n1", "sleep", "123")
	must(t, err)
	must(t, p.Signal(syscall.SIGTERM))
	if code, err := p.Wait(); code != 128+15 || err != nil {
		t.Error(code, err)
	}
	p, err = l.ExecStart(t.Context(), "n1", "sleep", "123")
	must(t, err)
	must(t, l.Kill(t.Context(), "n1"))
	if _, err := p.Wait(); err == nil {
		t.Error("the machine died, and yet no error")
	}
}

func TestMachineIsContained(t *testing.T) {
	l := start(t, "single")
	outside, err := os.Hostname()
	must(t, err)
	for _, c := range []string{
		"! echo b > /proc/sysrq-trigger || [ -c /proc/sysrq-trigger ]",
		"! echo 1 > /proc/sys/kernel/panic",
		"! date -s 2020-01-01",
		"! ls /dev/watchdog*",
		"[ \"$(echo /dev/[vsx]d*)\" = '/dev/sda3 /dev/sda4' ]",
		"! touch /usr/bin/x",
		"! ls /run/tasuki-lab",
		"! hostname | grep -qx " + outside,
		"[ $(ls -d /proc/[0-9]* | wc -l) -lt 12 ]",
		"[ ! -e /etc/tasuki ] || [ -z $(ls -A /etc/tasuki) ]",
		"echo 1 > /proc/sys/net/ipv4/ip_forward",
		"mkdir /new && touch /new/x /data/x /etc/x /var/x /opt/x /usr/sbin/x /usr/local/x /root/x /srv/x /home/x /run/x /tmp/x /dev/shm/x",
		"[ \"$(cat /etc/hostname)\" = n1 ]",
		"grep -q '10.30.1.200 client' /etc/hosts",
		"ls /sys/class/net/eth0",
		"[ -x /usr/sbin/tasuki ]",
	} {
		r, err := l.Exec(t.Context(), "n1", "sh", "-c", c)
		if err != nil || r.Code != 0 {
			t.Errorf("%s: %+v %v", c, r, err)
		}
	}
	if _, err := os.Stat("/etc/x"); err == nil {
		t.Error("a machine wrote to the real /etc")
	}
}

func TestWriteFile(t *testing.T) {
	l := start(t, "single")
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	must(t, l.WriteFile(t.Context(), "n1", "/srv/a/b/c", 0o750, big))
	r, err := l.Exec(t.Context(), "n1", "stat", "-c", "%a %s %U", "/srv/a/b/c")
	if err != nil || r.Stdout != "750 1048576 root\n" {
		t.Error(r, err)
	}
	if err := l.WriteFile(t.Context(), "n1", "relative", 0o600, nil); err == nil {
		t.Error("a relative path is accepted")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := l.WriteFile(ctx, "n1", "/proc/x", 0o600, nil); err == nil {
		t.Error("wrote into /proc")
	}
}
