package mirrordisk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/mirror/front"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/nbd"
)

// endKeeper ends the keeper, its process, and the front end that it holds: what waits
// in the block device fails, and what comes later too. No keeper is started before
// that is over, and the copy does not count as active any more.
func (m *mirror) endKeeper(ctx context.Context) error {
	bar := func(on bool) {
		m.mu.Lock()
		m.barred = on
		m.mu.Unlock()
		m.stir()
	}
	bar(true)
	defer bar(false)
	for m.kept() || m.beginning() {
		pid, err := lockHolder(m.file(control.FileKeeper))
		if err == nil && pid != 0 {
			err = killProcess(ctx, pid)
		}
		if err != nil {
			return fmt.Errorf("kill its keeper: %w", err)
		}
		if !wait(ctx, firstPause/10) {
			return fmt.Errorf("kill its keeper: %w", ctx.Err())
		}
	}
	if err := m.kill(ctx); err != nil { // it dies with its keeper, if that is what has started it
		return err
	}
	// One that is mounted still stays until the next activation, and fails until then.
	if err := nbd.Remove(ctx, control.NBDIdentity(string(m.name))); err != nil && !errors.Is(err, front.ErrBusy) {
		return fmt.Errorf("take away the block device that its process left behind: %w", err)
	}
	return m.forget(control.FileActive)
}

// beginning says whether a keeper that was started here may not have taken its lock yet.
func (m *mirror) beginning() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.keeps()
}

// lockHolder returns the process that holds the lock of a file, see flock(2); 0:
// nobody that can be seen. A line of /proc/locks has the holder in its fifth field
// and the device and inode of the file in its sixth, see proc_locks(5).
func lockHolder(path string) (int, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); errors.Is(err, unix.ENOENT) {
		return 0, nil
	} else if err != nil {
		return 0, fmt.Errorf("look at %s: %w", path, err)
	}
	want := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	f, err := os.Open("/proc/locks")
	if err != nil {
		return 0, fmt.Errorf("find out who holds %s: %w", path, err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if is := strings.Fields(lines.Text()); len(is) > 5 && is[1] == "FLOCK" && is[3] == "WRITE" && is[5] == want {
			pid, err := strconv.Atoi(is[4])
			if err != nil || pid <= 1 || pid == os.Getpid() {
				return 0, fmt.Errorf("%s is held by process %q, which is not killed", path, is[4])
			}
			return pid, nil
		}
	}
	return 0, lines.Err()
}
