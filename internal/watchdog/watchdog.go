// Package watchdog is what resets the node when nobody feeds it: the kernel's
// watchdog devices (methods watchdog, softdog, ipmi) or a helper process of our
// own that calls reboot(2) (method keepalive).
package watchdog

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// Dog is one watchdog. Its methods are called from one goroutine.
type Dog interface {
	// Arm starts the countdown. Arming what is armed feeds it; after an error
	// it may be tried again.
	Arm() error
	// Feed starts the countdown anew: to within, or to Timeout if that is
	// shorter. A device of the kernel always counts to Timeout. An error means
	// that the dog may not have been fed: Arm again.
	Feed(within time.Duration) error
	// Disarm stops the countdown. After an error the node may still be reset.
	Disarm() error
	// Close lets go of the dog. One that is armed still is goes on counting,
	// and resets the node unless somebody else takes it over in time.
	Close() error
	// Timeout is how long after the last feed the node is reset. It is never
	// longer than what was asked for.
	Timeout() time.Duration
}

// Opener opens dogs. The zero value of a field with a default may stay.
type Opener struct {
	// Run is the directory of the helper's socket.
	Run string
	// Mark is the file that the helper writes when it is about to reset the node:
	// how long it had been there, in whole seconds. "" is none.
	Mark string
	// OnlyInNamespace makes keepalive refuse to work in the machine's first PID
	// namespace, where it would reset the whole machine: for labs.
	OnlyInNamespace bool
	Log             *slog.Logger // default: nothing is logged

	root string // of sysfs, devices and modules; "" is the machine
	open func(path string) (device, error)
	load func(module string) error
}

// Bounds of a timeout. A device counts in whole seconds.
const (
	shortest       = 100 * time.Millisecond
	shortestDevice = time.Second
	longest        = 24 * time.Hour
)

// refusalCode is the code of every refusal.
const refusalCode = "watchdog-refused"

func refuse(hint, format string, args ...any) error {
	return &api.Error{Code: refusalCode, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// Open returns the dog of that method, not armed yet. A method that this node
// cannot offer is refused with an *api.Error that says why. device is "" for
// the method's default; keepalive has none.
func (o Opener) Open(method, device string, timeout time.Duration) (Dog, error) {
	if timeout > longest {
		return nil, refuse("choose a timeout of a few seconds to a few minutes", "%s: a timeout of %v is longer than %v", method, timeout, longest)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch method {
	case config.MethodKeepalive:
		if timeout < shortest {
			return nil, refuse("choose a longer timeout", "%s: a timeout of %v is shorter than %v", method, timeout, shortest)
		}
		return newKeepalive(o, timeout)
	case config.MethodWatchdog, config.MethodSoftdog, config.MethodIPMI:
		return o.openDevice(method, device, timeout)
	case config.MethodNone:
		return none{timeout}, nil
	}
	return nil, refuse("use keepalive, softdog, watchdog, ipmi or none", "%q is not a method of a watchdog", method)
}

// none is the dog that never bites.
type none struct{ timeout time.Duration }

func (none) Arm() error               { return nil }
func (none) Feed(time.Duration) error { return nil }
func (none) Disarm() error            { return nil }
func (none) Close() error             { return nil }
func (d none) Timeout() time.Duration { return d.timeout }
