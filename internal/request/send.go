package request

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// maxHosts bounds the hosts of one request.
const maxHosts = 64

// roundPause is the pause before all hosts of a cluster are tried once more.
const roundPause = 200 * time.Millisecond

// mayAct is the hint for a request that was sent and not answered.
const mayAct = "it may still carry the request out: see its events before asking again"

func refuse(code, hint, format string, args ...any) *api.Error {
	return &api.Error{Code: code, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// target is a node that is to be asked, with the hosts by which it was named.
type target struct {
	link  Link
	node  Node
	hosts []string
	paths []*path
}

// Send asks the hosts and returns what came of it: for EXEC_SCRIPT one answer
// for each host; for GRP_FAILOVER and fence one for each cluster that acted, under the
// host that answered, or an error for each host of a cluster that did not. A
// host that is not known gets its own error. A request without an id gets one.
// Send returns when all is answered, at the latest after Wait or when ctx ends.
func (s *Sender) Send(ctx context.Context, req api.SendRequest) []api.HostAnswer {
	wait := req.Wait
	if wait <= 0 {
		wait = s.o.Wait
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if no := checkSend(req); no != nil {
		return []api.HostAnswer{{Error: no}}
	}
	if req.ID == "" {
		req.ID = cluster.RequestID(rand.Text())
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return []api.HostAnswer{{Host: strings.Join(req.Hosts, ","), Error: refuse("busy", "ask again",
			"%d other requests are under way and did not end in time", s.o.MaxSends)}}
	}
	links := s.reconcile()
	targets, refused := s.resolve(links, req.Hosts)
	jobs := split(req.Verb, targets)
	answers := make([][]api.HostAnswer, len(jobs))
	var wg sync.WaitGroup
	for i, job := range jobs {
		wg.Go(func() { answers[i] = s.ask(ctx, req.Request, job) })
	}
	wg.Wait()
	all := slices.Concat(refused, slices.Concat(answers...))
	place := func(a api.HostAnswer) int { return slices.Index(req.Hosts, a.Host) }
	slices.SortStableFunc(all, func(a, b api.HostAnswer) int { return place(a) - place(b) })
	return all
}

var verbs = []cluster.Verb{cluster.VerbGroupFailover, cluster.VerbExecScript, cluster.VerbFence}

func checkSend(req api.SendRequest) *api.Error {
	if len(req.Hosts) == 0 {
		return refuse("no-host", "name the addresses or names of nodes of a linked cluster", "no host is named")
	}
	if len(req.Hosts) > maxHosts {
		return refuse("too-many-hosts", "", "%d hosts are named, the limit is %d", len(req.Hosts), maxHosts)
	}
	if !slices.Contains(verbs, req.Verb) {
		return refuse("unknown-verb", fmt.Sprintf("the verbs are %v", verbs), "%q is nothing that a cluster can be asked", req.Verb)
	}
	return nil
}

// split says what is asked as one: a node for EXEC_SCRIPT, else a cluster.
func split(verb cluster.Verb, targets []target) [][]target {
	var jobs [][]target
	place := map[cluster.LinkName]int{}
	for _, t := range targets {
		i, ok := place[t.link.Name]
		if !ok || verb == cluster.VerbExecScript {
			place[t.link.Name] = len(jobs)
			jobs = append(jobs, []target{t})
			continue
		}
		jobs[i] = append(jobs[i], t)
	}
	return jobs
}

// resolve finds the nodes that the hosts mean, each once, and answers for hosts
// that mean none.
func (s *Sender) resolve(links []Link, hosts []string) ([]target, []api.HostAnswer) {
	var targets []target
	var refused []api.HostAnswer
	seen := map[string]bool{}
	for _, h := range hosts {
		if seen[h] {
			continue
		}
		seen[h] = true
		found := match(links, h)
		switch len(found) {
		case 0:
			refused = append(refused, api.HostAnswer{Host: h, Error: refuse("unknown-host", known(links),
				"%q is no address and no name of a node of a linked cluster", h)})
			continue
		case 1:
		default:
			refused = append(refused, api.HostAnswer{Host: h, Error: refuse("ambiguous-host", "write LINK/NODE",
				"%q is a node of %s and of %s", h, found[0].link.Name, found[1].link.Name)})
			continue
		}
		t := found[0]
		same := func(o target) bool { return o.link.Name == t.link.Name && o.node.Name == t.node.Name }
		if i := slices.IndexFunc(targets, same); i >= 0 {
			targets[i].hosts = append(targets[i].hosts, h)
			continue
		}
		t.hosts, t.paths = []string{h}, s.find(t.link, t.node)
		targets = append(targets, t)
	}
	return targets, refused
}

// match returns the nodes that a host means: by address, with or without a
// port, by name, or as LINK/NODE.
func match(links []Link, host string) []target {
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	isAddr := err == nil
	if ap, err := netip.ParseAddrPort(host); err == nil {
		addr, isAddr = ap.Addr(), true
	}
	addr = addr.Unmap()
	var out []target
	for _, l := range links {
		for _, n := range l.Nodes {
			hit := string(n.Name) == host || string(l.Name)+"/"+string(n.Name) == host
			if isAddr {
				hit = slices.ContainsFunc(n.Addresses, func(a netip.AddrPort) bool { return a.Addr().Unmap() == addr })
			}
			if hit {
				out = append(out, target{link: l, node: n})
			}
		}
	}
	return out
}

// ask gets one answer from the targets of a job.
func (s *Sender) ask(ctx context.Context, req api.Request, job []target) []api.HostAnswer {
	if req.Verb == cluster.VerbExecScript {
		req.ID += cluster.RequestID("@" + job[0].node.Name)
	}
	body, err := json.Marshal(req)
	if err != nil {
		return failAll(job, func(target) *api.Error {
			return refuse("bad-request", "", "the request cannot be written down: %v", err)
		})
	}
	r := &race{o: &s.o, body: body, failed: map[cluster.NodeName]*api.Error{}, final: map[cluster.NodeName]bool{},
		open: map[cluster.NodeName]int{}}
	for {
		if win := r.run(ctx, lanes(job)); win != nil {
			return win.answers(req.Verb)
		}
		// A failover and a fence must get through if they can; a script is not
		// worth holding up what its caller does next.
		if req.Verb == cluster.VerbExecScript || r.settled(job) || !sleep(ctx, roundPause) {
			break
		}
	}
	return failAll(job, func(t target) *api.Error { return r.reason(ctx, t) })
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func failAll(job []target, why func(target) *api.Error) []api.HostAnswer {
	var out []api.HostAnswer
	for _, t := range job {
		for _, h := range t.hosts {
			out = append(out, api.HostAnswer{Host: h, Error: why(t)})
		}
	}
	return out
}

// lane is one way to ask: a target by one of its addresses.
type lane struct {
	t target
	p *path
}

// lanes are the ways to ask in the order in which they are tried: those that
// are up before those that are not, else hosts and addresses as given.
func lanes(job []target) []lane {
	var up, down []lane
	for _, t := range job {
		for _, p := range t.paths {
			if p.up() {
				up = append(up, lane{t, p})
			} else {
				down = append(down, lane{t, p})
			}
		}
	}
	return append(up, down...)
}

// race asks by several lanes until one answers.
type race struct {
	o      *Options
	body   []byte
	failed map[cluster.NodeName]*api.Error // the last error of a node
	final  map[cluster.NodeName]bool       // it would be the same the next time

	mu   sync.Mutex
	open map[cluster.NodeName]int // requests sent whose fate is unknown
}

// result is how one lane ended.
type result struct {
	lane   lane
	answer *api.Answer
	err    *api.Error
	answered
}

// answered says what an error is worth.
type answered int

const (
	answeredNot  answered = iota // nothing came back: try another way
	answeredBusy                 // the node cannot answer now: try another node
	answeredYes                  // it is the cluster's word
)

func (r *result) answers(verb cluster.Verb) []api.HostAnswer {
	hosts := r.lane.t.hosts
	if verb != cluster.VerbExecScript {
		hosts = hosts[:1]
	}
	var out []api.HostAnswer
	for _, h := range hosts {
		out = append(out, api.HostAnswer{Host: h, Via: r.lane.p.key.address.String(), Answer: r.answer, Error: r.err})
	}
	return out
}

// run tries the lanes once, each a moment after the one before or as soon as
// none is under way. It returns the first answer, or nil if none came.
func (r *race) run(ctx context.Context, lanes []lane) *result {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan *result, len(lanes))
	timer := time.NewTimer(0)
	defer timer.Stop()
	spent := map[cluster.NodeName]bool{} // nodes that answered, without a word of the cluster
	flying := 0
	for {
		for len(lanes) > 0 && spent[lanes[0].t.node.Name] {
			lanes = lanes[1:]
		}
		if flying == 0 && len(lanes) == 0 {
			return nil
		}
		var next <-chan time.Time
		if len(lanes) > 0 {
			next = timer.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-next:
			l := lanes[0]
			lanes = lanes[1:]
			flying++
			go func() { results <- r.try(ctx, l) }()
			timer.Reset(r.hedge(l, lanes))
		case got := <-results:
			flying--
			if got.answered == answeredYes {
				return got
			}
			r.note(got)
			spent[got.lane.t.node.Name] = spent[got.lane.t.node.Name] || got.answered == answeredBusy
			timer.Reset(0)
		}
	}
}

// hedge is how long a lane has for itself.
func (r *race) hedge(l lane, next []lane) time.Duration {
	if len(next) > 0 && next[0].t.node.Name != l.t.node.Name && l.p.up() {
		return r.o.HostHedge
	}
	return r.o.Hedge
}

// note keeps the error that says most about a node.
func (r *race) note(got *result) {
	node := got.lane.t.node.Name
	old := r.failed[node]
	if old == nil || got.answered == answeredBusy || old.Code == "unreachable" {
		r.failed[node] = got.err
	}
	r.final[node] = got.err.Code == "not-trusted" || got.err.Code == "bad-link"
}

// settled says whether another round would end like this one.
func (r *race) settled(job []target) bool {
	for _, t := range job {
		if len(t.paths) > 0 && !r.final[t.node.Name] {
			return false
		}
	}
	return true
}

// reason says why there is no answer of a target.
func (r *race) reason(ctx context.Context, t target) *api.Error {
	if len(t.node.Addresses) == 0 {
		return refuse("no-address", "link the cluster again", "no address of %s of %s is known", t.node.Name, t.link.Name)
	}
	if len(t.paths) == 0 {
		return refuse("not-ready", "is the daemon starting or stopping? ask again in a moment",
			"there is no connection to %s of %s and none is being made", t.node.Name, t.link.Name)
	}
	r.mu.Lock()
	open := r.open[t.node.Name] > 0
	r.mu.Unlock()
	if e := r.failed[t.node.Name]; e != nil && !open {
		return e
	}
	timeUp := errors.Is(ctx.Err(), context.DeadlineExceeded)
	switch {
	case timeUp && open:
		return refuse("no-answer", mayAct, "%s of %s did not answer in time", t.node.Name, t.link.Name)
	case timeUp:
		return refuse("unreachable", "is the node up?", "%s of %s could not be reached in time", t.node.Name, t.link.Name)
	}
	return refuse("canceled", "", "the request to %s of %s was given up", t.node.Name, t.link.Name)
}

func (r *race) opened(node cluster.NodeName, by int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[node] += by
}

// try asks by one lane. A connection that breaks is replaced once: the other
// end may just have restarted, and the id makes it safe to ask again.
func (r *race) try(ctx context.Context, l lane) *result {
	var broken *http.ClientConn
	for {
		conn, err := l.p.get(ctx, broken)
		if err != nil {
			return &result{lane: l, err: l.p.pathError(err, broken != nil)}
		}
		r.opened(l.t.node.Name, +1)
		status, data, err := post(ctx, conn, l.p.key.address, PathRequests, bytes.NewReader(r.body))
		if err == nil || ctx.Err() == nil {
			r.opened(l.t.node.Name, -1)
		}
		if err == nil {
			return l.result(status, data)
		}
		l.p.wake()
		if broken != nil || ctx.Err() != nil {
			return &result{lane: l, err: l.p.pathError(err, true)}
		}
		broken = conn
	}
}

func (l lane) result(status int, data []byte) *result {
	out := &result{lane: l}
	out.answer, out.err, out.answered = read(status, data)
	if out.answered == answeredNot {
		out.err.Message = fmt.Sprintf("%s of %s at %s: %s", l.t.node.Name, l.t.link.Name, l.p.key.address, out.err.Message)
	}
	return out
}
