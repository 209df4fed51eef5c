package metrics

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/heartbeat"
)

const (
	// lookWithin bounds how long a scrape waits for the daemon.
	lookWithin = time.Second
	// lookEvery is how long a look at the daemon serves every scrape.
	lookEvery = time.Second
	// scrapesAtOnce bounds the scrapes under way; further ones get 503.
	scrapesAtOnce = 4
)

// Look is what a scrape finds at the daemon.
type Look struct {
	Answers bool          // the engine did; else Status and Vitals mean nothing
	Status  api.Status    //
	Vitals  engine.Vitals //
	Timing  config.Timing // of the cluster file
	Oldest  time.Duration // the oldest acknowledgement that the lease stood on in the last one to two minutes
	Beats   heartbeat.Stats
	Certs   []Certificate
	Mirrors []Mirror

	at time.Time // when it was taken
}

// Certificate is one that the node depends on. Their names differ.
type Certificate struct {
	Name    string
	Expires time.Time
}

// Mirror is what the kernel asked of this node's copy of a mirror disk since its
// process started.
type Mirror struct {
	Name                                   cluster.ResourceName
	Reads, Writes, ReadBytes, WrittenBytes uint64
	Waiting                                int
	Oldest                                 time.Duration
}

// Options of New.
type Options struct {
	Cluster cluster.Name
	Node    cluster.NodeName
	Version string
	// Look looks at the daemon. It returns after that time at the latest, with what
	// it has.
	Look func(within time.Duration) Look
}

// Set is the metrics of one daemon. Its methods may be called from any
// goroutine and do not wait; those of a nil Set do nothing.
type Set struct {
	opt    Options
	fam    *families
	delays delays

	beatDelay       *prometheus.HistogramVec
	lateness, write prometheus.Histogram
	asked, wasAsked *prometheus.CounterVec
	events          *prometheus.CounterVec
	registry        *prometheus.Registry
	served          http.Handler

	mu   sync.Mutex
	look Look
}

// short is the buckets of what should take milliseconds: 1 ms to 4 s, by two.
var short = prometheus.ExponentialBuckets(0.001, 2, 13)

// New returns the metrics of a daemon.
func New(opt Options) *Set {
	f := newFamilies()
	histogram := func(f *Family) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: f.Name, Help: f.Help, Buckets: short})
	}
	counters := func(f *Family) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: f.Name, Help: f.Help}, f.Labels)
	}
	s := &Set{
		opt: opt, fam: f, delays: delays{all: map[direction]*fastest{}},
		beatDelay: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: f.beatDelay.Name, Help: f.beatDelay.Help, Buckets: short}, f.beatDelay.Labels),
		lateness:  histogram(f.lateness), write: histogram(f.stateWrite),
		asked: counters(f.asked), wasAsked: counters(f.wasAsked), events: counters(f.events),
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	ours := prometheus.WrapRegistererWith(prometheus.Labels{"cluster": string(opt.Cluster)}, reg)
	ours.MustRegister(s.beatDelay, s.lateness, s.write, s.asked, s.wasAsked, s.events, (*looker)(s))
	s.registry = reg
	s.served = promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: scrapesAtOnce, ErrorHandling: promhttp.ContinueOnError})
	return s
}

// ServeHTTP answers a scrape.
func (s *Set) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.served.ServeHTTP(w, r) }

// Beat notes a heartbeat that arrives from another node now, on which of this
// node's networks, from 0.
func (s *Set) Beat(from cluster.NodeName, path int, payload []byte) {
	if s == nil {
		return
	}
	arrived := engine.Now()
	sent, is := engine.BeatSent(payload)
	if !is {
		return
	}
	if d, known := s.delays.of(direction{from, path}, sent, arrived); known {
		s.beatDelay.WithLabelValues(string(from), string(s.opt.Node), strconv.Itoa(path+1)).Observe(d.Seconds())
	}
}

// Late notes how late the engine came to what was due.
func (s *Set) Late(d time.Duration) {
	if s != nil {
		s.lateness.Observe(d.Seconds())
	}
}

// Wrote notes how long a durable write of the replicated state took.
func (s *Set) Wrote(d time.Duration) {
	if s != nil {
		s.write.Observe(d.Seconds())
	}
}

// Event notes an event that this node wrote.
func (s *Set) Event(e *api.Event) {
	if s != nil {
		s.events.WithLabelValues(string(e.Level), e.Code).Inc()
	}
}

// Asked notes the answer of a linked cluster, "" where it is not known which; a
// nil error is a good one.
func (s *Set) Asked(link cluster.LinkName, verb cluster.Verb, no *api.Error) {
	if s != nil {
		s.asked.WithLabelValues(string(link), verbLabel(verb), outcome(no)).Inc()
	}
}

// WasAsked notes what this node answered a linked cluster.
func (s *Set) WasAsked(link cluster.LinkName, verb cluster.Verb, no *api.Error) {
	if s != nil {
		s.wasAsked.WithLabelValues(string(link), verbLabel(verb), outcome(no)).Inc()
	}
}

// verbLabel keeps a verb that somebody made up out of the labels.
func verbLabel(v cluster.Verb) string {
	switch v {
	case cluster.VerbGroupFailover, cluster.VerbExecScript, cluster.VerbFence:
		return string(v)
	}
	return "other"
}

func outcome(no *api.Error) string {
	if no == nil {
		return "ok"
	}
	return no.Code
}

// Forget drops what was measured of nodes that the cluster file does not have
// any more.
func (s *Set) Forget(f *config.File) {
	if s == nil {
		return
	}
	s.delays.keep(func(n cluster.NodeName) bool { return f.Node(n) != nil })
}

// at returns a look at the daemon that is at most lookEvery old.
func (s *Set) at() Look {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.look.at) >= lookEvery {
		s.look = s.opt.Look(lookWithin)
		s.look.at = time.Now()
	}
	return s.look
}
