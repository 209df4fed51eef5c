package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/script"
	"github.com/tasuki-ha/tasuki/internal/whatif"
)

// Bounds of a question about what would happen. The hard limit of its memory is the
// process's own.
const (
	foreseeWithin = time.Minute // with the time that it waits for the one before
	foreseeHeap   = "GOMEMLIMIT=512MiB"
	foreseeAnswer = 32 << 20 // bytes
)

// Foresee says what would follow if something happened.
func (d *Daemon) Foresee(ctx context.Context, asked api.SimulateRequest) (api.Simulation, error) {
	return d.foreseer.ask(ctx, func(ctx context.Context) (whatif.Errand, error) {
		snap, err := d.Snapshot(ctx)
		if err != nil {
			return whatif.Errand{}, err
		}
		log, err := d.Events(ctx, api.EventFilter{Newest: true})
		log = slices.DeleteFunc(log, func(e api.Event) bool { _, _, tells := whatif.Tells(&e); return !tells })
		return whatif.Errand{Asked: asked, Snapshot: snap, Log: log}, err
	})
}

// foreseer has questions answered, one at a time, by a process of its own: this one
// has the priority that the cluster lives by, and feeds the watchdog.
type foreseer struct {
	one     chan struct{} // capacity 1
	program string
	within  time.Duration // with the time that a question waits for the one before
}

func newForeseer() *foreseer {
	return &foreseer{one: make(chan struct{}, 1), program: "/proc/self/exe", within: foreseeWithin}
}

func (f *foreseer) ask(ctx context.Context, errand func(context.Context) (whatif.Errand, error)) (api.Simulation, error) {
	var out whatif.Outcome
	err := f.answer(ctx, "foresee", func(ctx context.Context) (any, error) { return errand(ctx) }, &out,
		"think about what would happen", api.Error{Message: fmt.Sprintf("the answer takes longer than %s", foreseeWithin), Hint: "on a node: tasuki simulate, which takes its time"})
	switch {
	case err != nil:
		return api.Simulation{}, err
	case out.Error != nil:
		return api.Simulation{}, out.Error
	case out.Simulation == nil:
		return api.Simulation{}, errors.New("read what would happen: there is no answer")
	}
	return *out.Simulation, nil
}

// answer has a process answer an errand, and reads what comes back into out. what is
// done by it, for an error; late says that it took too long.
func (f *foreseer) answer(ctx context.Context, command string, errand func(context.Context) (any, error), out any, what string, late api.Error) error {
	r, err := f.run(ctx, command, errand)
	var no *api.Error
	switch {
	case errors.As(err, &no):
		return no
	case errors.Is(err, script.ErrTimedOut):
		late.Code = "timed-out"
		return &late
	case err == nil:
		err = r.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w (%s)", what, err, r.LastLine())
	}
	if err := json.Unmarshal(r.Stdout, out); err != nil {
		return fmt.Errorf("%s: read the answer: %w", what, err)
	}
	return nil
}

// run has a process answer an errand, which is made when it is its turn.
func (f *foreseer) run(ctx context.Context, command string, errand func(context.Context) (any, error)) (script.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, f.within)
	defer cancel()
	select {
	case f.one <- struct{}{}:
		defer func() { <-f.one }()
	case <-ctx.Done():
		return script.Result{}, &api.Error{Code: "overload", Message: "this node is thinking about another question", Hint: "ask again later, or another node"}
	}
	e, err := errand(ctx)
	if err != nil {
		return script.Result{}, err
	}
	data, err := json.Marshal(e)
	if err != nil {
		return script.Result{}, fmt.Errorf("write a question: %w", err)
	}
	return script.Run(ctx, script.Spec{
		Path: f.program, Args: []string{command}, Env: []string{"GOMAXPROCS=1", foreseeHeap},
		Input: data, Stdout: foreseeAnswer, Grace: time.Millisecond, // it has nothing to tidy up
	})
}
