package control

import (
	"context"
	"path/filepath"
	"testing"
	"time"
)

func TestQuestionsAndEvents(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := Listen(dir, func(r Request, tell func(Message)) {
		switch r.Do {
		case Activate:
			go tell(Message{Path: "/dev/loop7"})
		case Deactivate:
			tell(Message{Error: "it is mounted", Code: Busy})
		}
	}, func() []Message { return []Message{{Status: &Status{Role: "standby"}}} })
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	got := make(chan Message, 10)
	c, err := Dial(ctx, filepath.Join(dir, FileSocket), func(m Message) { got <- m })
	if err != nil {
		t.Fatal(err)
	}
	if m := <-got; m.Status == nil || m.Status.Role != "standby" {
		t.Errorf("the greeting: %+v", m)
	}
	if m, err := c.Do(ctx, Request{Do: Activate}); err != nil || m.Path != "/dev/loop7" {
		t.Errorf("activate: %+v, %v", m, err)
	}
	if _, err := c.Do(ctx, Request{Do: Deactivate}); CodeOf(err) != Busy || err.Error() != "it is mounted" {
		t.Errorf("deactivate: %v", err)
	}
	s.Tell(Message{Ask: &Ask{Set: Set{Self: true, Rev: 4}, Why: "so it is"}})
	if m := <-got; m.Ask == nil || m.Ask.Rev != 4 {
		t.Errorf("an event: %+v", m)
	}
	short, end := context.WithTimeout(ctx, 20*time.Millisecond)
	defer end()
	if _, err := c.Do(short, Request{Do: Quit}); err != context.DeadlineExceeded {
		t.Errorf("a question that is not answered: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-c.Done()
	if _, err := c.Do(context.Background(), Request{Do: Query}); err == nil {
		t.Error("a question to nobody was answered")
	}
}

func TestSpecChanges(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "md")
	for i, want := range []bool{true, false} {
		if changed, err := WriteSpec(dir, Spec{Resource: "md", Port: 29051}); err != nil || changed != want {
			t.Errorf("%d: %v %v", i, changed, err)
		}
	}
	if s, err := ReadSpec(dir); err != nil || s.Port != 29051 {
		t.Errorf("%+v %v", s, err)
	}
}
