package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/journal"
)

// Bounds of the live view.
const (
	againAfter  = 300 * time.Millisecond // a daemon that does not answer is asked again
	keptEvents  = 200
	shownEvents = 8
)

// What the feed tells the view.
type (
	// gone says that the daemon does not answer, and why.
	gone struct{ err error }
	// past are events that were there before.
	past []api.Event
	// told is the story of an event.
	told struct {
		lines []string
		err   error
	}
)

// feed tells what changes until ctx ends. A daemon that has gone is asked again
// until it is back.
func (p *program) feed(ctx context.Context, tell func(any)) {
	for ctx.Err() == nil {
		err := p.client().Stream(ctx, func(s api.Status) { tell(s) }, func(e api.Event) { tell(e) })
		if ctx.Err() != nil {
			return
		}
		tell(gone{err})
		select {
		case <-ctx.Done():
		case <-time.After(againAfter):
		}
		if events, err := p.client().Events(ctx, api.EventFilter{Newest: true, Limit: keptEvents}); err == nil {
			tell(past(events))
		}
	}
}

// watch shows the status as it changes: on a terminal a view with keys, else the
// whole text after each change, or a line of JSON.
func (p *program) watch(ctx context.Context, verbose bool) error {
	if _, err := p.client().Status(ctx); err != nil {
		return err // of the first, an error is one
	}
	if p.asJSON || !isTerminal(p.out) || !isTerminal(p.in) {
		return p.watchPlain(ctx, verbose)
	}
	ctx, cancel := context.WithCancel(ctx)
	v := &view{p: p, ctx: ctx, verbose: verbose, seen: map[cluster.EventID]bool{}}
	if events, err := p.client().Events(ctx, api.EventFilter{Newest: true, Limit: keptEvents}); err == nil {
		v.remember(events...)
	}
	screen := tea.NewProgram(v, tea.WithContext(ctx), tea.WithInput(p.in), tea.WithOutput(p.out), tea.WithoutSignalHandler())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.feed(ctx, func(news any) { screen.Send(news) })
	}()
	_, err := screen.Run()
	cancel()
	<-ended
	if errors.Is(err, tea.ErrProgramKilled) { // by the context
		return nil
	}
	return err
}

// watchPlain writes the status again whenever it has changed.
func (p *program) watchPlain(ctx context.Context, verbose bool) error {
	var lost string
	p.feed(ctx, func(news any) {
		switch is := news.(type) {
		case api.Status:
			lost = ""
			if p.asJSON {
				_ = json.NewEncoder(p.out).Encode(is)
				return
			}
			fmt.Fprintf(p.out, "---- %s\n", time.Now().Format("2006/01/02 15:04:05.000"))
			p.printStatus(&is, verbose)
		case api.Event:
			if !p.asJSON {
				fmt.Fprintln(p.out, journal.Line(is, time.Local))
			}
		case gone:
			if text := is.err.Error(); text != lost && !p.asJSON {
				lost = text
				fmt.Fprintf(p.out, "---- %s: waiting for it\n", text)
			}
		}
	})
	return nil
}

// view is the live view.
type view struct {
	p       *program
	ctx     context.Context // ends with the program
	verbose bool
	status  *api.Status
	at      time.Time // of status
	lost    error     // the daemon does not answer, since
	since   time.Time
	events  []api.Event // oldest first
	seen    map[cluster.EventID]bool
	chosen  int      // index of the chosen row among those that can be
	story   []string // shown instead of the rest
	top     int      // the first line of the story that is shown
	width   int
	height  int
}

// row is one line; what can be chosen knows what it is about.
type row struct {
	text  string
	about map[string]string // fields of events about it; nil: it cannot be chosen
	event cluster.EventID   // it is that event
}

// Init has nothing to begin.
func (v *view) Init() tea.Cmd { return nil }

// Update takes keys and news.
func (v *view) Update(m tea.Msg) (tea.Model, tea.Cmd) {
	switch is := m.(type) {
	case tea.WindowSizeMsg:
		v.width, v.height = is.Width, is.Height
	case tea.KeyPressMsg:
		return v, v.key(is.String())
	case api.Status:
		v.status, v.at, v.lost = &is, time.Now(), nil
	case api.Event:
		v.remember(is)
	case past:
		v.remember(is...)
	case gone:
		if v.lost == nil {
			v.since = time.Now()
		}
		v.lost = is.err
	case told:
		v.story, v.top = is.lines, 0
		if is.err != nil {
			v.story = []string{"error: " + is.err.Error()}
		}
	}
	return v, nil
}

func (v *view) remember(events ...api.Event) {
	for _, e := range events {
		if !v.seen[e.ID] {
			v.seen[e.ID] = true
			v.events = append(v.events, e)
		}
	}
	for len(v.events) > keptEvents {
		delete(v.seen, v.events[0].ID)
		v.events = v.events[1:]
	}
}

func (v *view) key(k string) tea.Cmd {
	step := map[string]int{"up": -1, "k": -1, "down": 1, "j": 1, "pgup": -10, "pgdown": 10}[k]
	switch {
	case k == "q" || k == "ctrl+c":
		return tea.Quit
	case v.story != nil && step != 0:
		v.top = max(0, min(v.top+step, len(v.story)-1))
	case v.story != nil && (k == "esc" || k == "e" || k == "enter"):
		v.story = nil
	case v.story != nil:
	case step != 0:
		v.chosen += step
	case k == "e" || k == "enter":
		return v.explain()
	}
	return nil
}

// explain asks for the story of what is chosen: of an event its own, of anything
// else that of the latest event about it.
func (v *view) explain() tea.Cmd {
	r := v.choice(v.rows())
	if r == nil {
		return nil
	}
	id := r.event
	for i := len(v.events) - 1; id == "" && i >= 0; i-- {
		for k, name := range r.about {
			if f := v.events[i].Fields[k]; f == name || k == "node" && f == "" && string(v.events[i].Node) == name {
				id = v.events[i].ID
			}
		}
	}
	if id == "" {
		return func() tea.Msg {
			return told{lines: []string{"nothing has happened to it that the latest events tell of"}}
		}
	}
	return func() tea.Msg {
		chain, err := v.p.client().Explain(v.ctx, id)
		var text bytes.Buffer
		q := *v.p
		q.out = &text
		q.story(chain)
		return told{strings.Split(strings.TrimRight(text.String(), "\n"), "\n"), err}
	}
}

// choice returns the chosen row, and brings the choice back to where rows are.
func (v *view) choice(rows []row) *row {
	var can []int
	for i := range rows {
		if rows[i].about != nil {
			can = append(can, i)
		}
	}
	if len(can) == 0 {
		return nil
	}
	v.chosen = max(0, min(v.chosen, len(can)-1))
	return &rows[can[v.chosen]]
}

// rows returns what is shown of the status and the latest events.
func (v *view) rows() []row {
	var out []row
	var text bytes.Buffer
	q := *v.p
	q.out, q.color = &text, true
	// add takes what was printed; its first line can be chosen if it is about
	// something.
	add := func(about map[string]string) {
		if text.Len() == 0 {
			return
		}
		for i, line := range strings.Split(strings.TrimRight(text.String(), "\n"), "\n") {
			r := row{text: line}
			if i == 0 {
				r.about = about
			}
			out = append(out, r)
		}
		text.Reset()
	}
	if s := v.status; s != nil {
		q.printParts(s, v.verbose, func(kind, name string) {
			var about map[string]string
			if kind != "" {
				about = map[string]string{kind: name}
			}
			add(about)
		})
	}
	fmt.Fprint(&text, "\nlatest events")
	add(nil)
	for _, e := range v.events[max(0, len(v.events)-shownEvents):] {
		line := journal.Line(e, time.Local)
		if e.Level == cluster.LevelError {
			line = q.paint(false, line)
		}
		out = append(out, row{text: "  " + line, about: map[string]string{}, event: e.ID})
	}
	return out
}

// View draws.
func (v *view) View() tea.View {
	var lines []string
	at := 0
	if v.story != nil {
		lines, at = v.story[v.top:], 0
	} else {
		rows := v.rows()
		chosen := v.choice(rows)
		for i := range rows {
			mark := " "
			if &rows[i] == chosen {
				at, mark = len(lines), lipgloss.NewStyle().Bold(true).Render(">")
			}
			lines = append(lines, mark+rows[i].text)
		}
	}
	room := max(v.height-2, 1)
	if v.height > 0 && len(lines) > room {
		from := max(0, min(at-room/2, len(lines)-room))
		lines = lines[from : from+room]
	}
	for i := range lines {
		if v.width > 0 {
			lines[i] = lipgloss.NewStyle().Inline(true).MaxWidth(v.width).Render(lines[i])
		}
	}
	keys := "q quit  ↑ ↓ choose  e explain"
	if v.story != nil {
		keys = "q quit  ↑ ↓ scroll  esc back"
	}
	screen := tea.NewView(strings.Join(append(lines, "", v.foot()+keys), "\n"))
	screen.AltScreen = true
	return screen
}

// foot says how fresh the view is.
func (v *view) foot() string {
	bad := lipgloss.NewStyle().Foreground(lipgloss.Color("1")).Bold(true)
	switch {
	case v.lost != nil:
		return bad.Render(fmt.Sprintf("the daemon does not answer since %s, this is how it was; waiting for it", v.since.Format("15:04:05"))) + "  "
	case v.status == nil:
		return "asking  "
	}
	return v.at.Format("15:04:05") + "  "
}
