package lab_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/tasuki-ha/tasuki/internal/journal"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

// outletTold is an outlet whose program keeps what it reads where a boot leaves it.
const outletTold = "outlets: {told: {kind: command, command: [/etc/tasuki/tell]}}\n"

// tell puts the program of outletTold on machines. Until then its events wait.
func tell(t *testing.T, s *demo.Stage, machines ...string) {
	t.Helper()
	for _, m := range machines {
		must(t, s.Lab.WriteFile(t.Context(), m, "/etc/tasuki/tell", 0o755, []byte("#!/bin/sh\ncat >> /var/log/told\n")))
	}
}

// hasTold waits until the outlet of a machine has had every event that this machine
// wrote since the first one that it had, numbered without a gap. What a crash took
// from the disk may come late, and repeats may be there.
func hasTold(t *testing.T, s *demo.Stage, machine string) {
	t.Helper()
	why := ""
	err := s.Until(t.Context(), "the outlet of "+machine+" has told everything", func() (bool, error) {
		text, err := s.Do(t.Context(), machine, "cat", "/var/log/told")
		if err != nil {
			return false, nil // it has told nothing yet
		}
		events, err := s.Events(t.Context(), machine)
		if err != nil {
			return false, err
		}
		why = lacksEvents(text, machine, func(yield func(uint64)) {
			for _, e := range events {
				if _, seq, err := journal.ParseID(e.ID); err == nil && string(e.Node) == machine {
					yield(seq)
				}
			}
		})
		return why == "", nil
	})
	if err != nil {
		t.Fatalf("%v: %s", err, why)
	}
}

// lacksEvents says what is not as it should be in lines that a program read, or "".
func lacksEvents(text, machine string, wrote func(func(uint64))) string {
	had, first, number := map[uint64]bool{}, uint64(0), uint64(0)
	for line := range strings.Lines(text) {
		var d struct {
			From   string
			Number uint64
			Event  struct{ ID string }
		}
		if err := json.Unmarshal([]byte(line), &d); err != nil || d.From != machine || d.Number > number+1 {
			return fmt.Sprintf("%q after number %d: %v", line, number, err)
		}
		number = max(number, d.Number)
		var seq uint64
		if _, err := fmt.Sscanf(d.Event.ID, machine+"/%d", &seq); err != nil {
			return fmt.Sprintf("%q: %v", line, err)
		}
		if first == 0 {
			first = seq
		}
		had[seq] = true
	}
	why := ""
	wrote(func(seq uint64) {
		if first == 0 || seq >= first && !had[seq] {
			why = fmt.Sprintf("%d is missing", seq)
		}
	})
	return why
}

// scraped returns what Prometheus would get from a machine.
func scraped(t *testing.T, s *demo.Stage, machine string) string {
	t.Helper()
	return do(t, s, machine, "curl", "-sS", "--max-time", "5", "--unix-socket", "/run/tasuki/api.sock", "http://tasuki/metrics")
}

// tells fails the test unless a scrape has lines that begin so.
func tells(t *testing.T, scrape string, lines ...string) {
	t.Helper()
	for _, want := range lines {
		if !strings.Contains(scrape, "\n"+want) {
			t.Errorf("%s is not in\n%s", want, scrape)
		}
	}
}
