package outlet

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// journald hands events to the journal of systemd.
type journald struct {
	sure
	busy chan error // capacity 1: of an event that is not taken yet; nil: none is
}

// errJournald says that journald does not take what it is given.
var errJournald = errors.New("journald does not take the event in time")

// deliver implements sink. The library waits without end for a journald that does
// not read, so it does that behind our back, for one event at a time.
func (j *journald) deliver(ctx context.Context, d *Delivery) error {
	if j.busy != nil {
		select {
		case <-j.busy:
			j.busy = nil
		case <-ctx.Done():
			return errJournald
		}
	}
	done, priority, fields := make(chan error, 1), priorityOf(d.Event.Level), journalFields(d)
	go func() { done <- journal.Send(d.Event.Text, priority, fields) }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("hand the event to journald: %w", err)
		}
		return nil
	case <-ctx.Done():
		j.busy = done
		return errJournald
	}
}

func priorityOf(l cluster.Level) journal.Priority {
	switch l {
	case cluster.LevelError:
		return journal.PriErr
	case cluster.LevelWarn:
		return journal.PriWarning
	}
	return journal.PriInfo
}

// journalFields returns everything about an event but its text, by the names that
// journalctl can look for.
func journalFields(d *Delivery) map[string]string {
	e := &d.Event
	out := map[string]string{
		"SYSLOG_IDENTIFIER": "tasuki", "TASUKI_EVENT": string(e.ID), "TASUKI_CLUSTER": string(d.Cluster), "TASUKI_NODE": string(e.Node),
		"TASUKI_MODULE": e.Module, "TASUKI_CODE": e.Code, "TASUKI_TIME": e.Time.UTC().Format(time.RFC3339Nano), "TASUKI_NUMBER": strconv.FormatUint(d.Number, 10),
	}
	if e.Cause != "" {
		out["TASUKI_CAUSE"] = string(e.Cause)
	}
	if d.Missed > 0 {
		out["TASUKI_MISSED"] = strconv.FormatUint(d.Missed, 10)
	}
	for k, v := range e.Fields {
		out["TASUKI_FIELD_"+fieldName(k)] = v
	}
	return out
}

// fieldName is the name of an event's field as journald takes it.
func fieldName(k string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(k))
}

// close implements sink.
func (*journald) close() {}
