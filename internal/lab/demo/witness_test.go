package demo

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/lab"
)

// witnessed is how many clusters BenchmarkWitness makes.
const witnessed = 8

// BenchmarkWitness measures what one idle tasuki witness run costs, with one
// cluster of two nodes and with eight of them, as BenchmarkIdle does.
func BenchmarkWitness(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: namespaces")
	}
	ctx := b.Context()
	layout, err := lab.Parse("bench", []byte(witnessLayout()))
	if err != nil {
		b.Fatal(err)
	}
	l, err := lab.Start(ctx, lab.Options{Layout: layout, Name: "witness-bench", Binary: binary(b), Attached: true})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	defer func() {
		if err := l.Down(context.WithoutCancel(ctx)); err != nil {
			b.Error(err)
		}
	}()
	s := &Stage{Lab: l, Group: "g"}
	for i := range witnessed {
		if err := s.witnessedCluster(ctx, i); err != nil {
			b.Fatal(err)
		}
		if i > 0 && i < witnessed-1 {
			continue
		}
		if i == 0 {
			if _, err := l.Service(ctx, "w", "start"); err != nil {
				b.Fatal(err)
			}
		}
		for k := range i + 1 {
			if err := s.votes(ctx, k); err != nil {
				b.Fatal(err)
			}
		}
		pid := daemon(b, s, "w", "run")
		before, began := running(b, pid), time.Now()
		<-time.After(idleFor)
		share := float64(running(b, pid)-before) / float64(time.Since(began)) * 100
		b.ReportMetric(share, fmt.Sprintf("%d_%%core", i+1))
		b.ReportMetric(pss(b, pid), fmt.Sprintf("%d_PSS_MiB", i+1))
	}
	b.ReportMetric(0, "ns/op")
}

// witnessLayout has two machines for each cluster and w, on two networks.
func witnessLayout() string {
	var t strings.Builder
	t.WriteString("name: witness-bench\nswitches:\n  - {name: s1, networks: [10.50.1.0/24]}\n  - {name: s2, networks: [10.50.2.0/24]}\nmachines:\n")
	machine := func(name string, n int, more string) {
		fmt.Fprintf(&t, "  - {name: %s, %snics: [{name: eth0, switch: s1, addresses: [10.50.1.%d]}, {name: eth1, switch: s2, addresses: [10.50.2.%d]}]}\n", name, more, n, n)
	}
	for i := range witnessed {
		machine(fmt.Sprintf("c%d-1", i), 10*i+11, "")
		machine(fmt.Sprintf("c%d-2", i), 10*i+12, "")
	}
	machine("w", 3, "witness: true, ")
	return t.String()
}

// witnessedCluster makes a cluster with an active group, and w its witness.
func (s *Stage) witnessedCluster(ctx context.Context, i int) error {
	file := fmt.Sprintf(`cluster: c%[1]d
nodes:
  c%[1]d-1: {addresses: [10.50.2.%[2]d, 10.50.1.%[2]d]}
  c%[1]d-2: {addresses: [10.50.2.%[3]d, 10.50.1.%[3]d]}
  w: {addresses: [10.50.2.3, 10.50.1.3], witness: true, port: %[4]d}
groups:
  g: {resources: {app: {kind: exec, start: /usr/bin/true}}}
`, i, 10*i+11, 10*i+12, 29010+i)
	first := fmt.Sprintf("c%d-1", i)
	if err := s.Cluster(ctx, []byte(file), func(string) {}, first, fmt.Sprintf("c%d-2", i)); err != nil {
		return err
	}
	token, err := s.Do(ctx, first, "tasuki", "token", "join", "--node", "w")
	if err != nil {
		return err
	}
	_, err = s.Do(ctx, "w", "tasuki", "witness", "join", strings.TrimSpace(token), "--node", "w")
	return err
}

// votes waits until all three of a cluster vote and its group is active.
func (s *Stage) votes(ctx context.Context, i int) error {
	first := fmt.Sprintf("c%d-1", i)
	return s.Until(ctx, "all of "+first+"'s cluster vote", func() (bool, error) {
		st, err := s.Status(ctx, first)
		return err == nil && allUp(&st) && s.active(&st) != cluster.NodeName(""), nil
	})
}
