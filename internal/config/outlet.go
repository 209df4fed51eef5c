package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// OutletKind names a way by which events leave the cluster.
type OutletKind string

// The kinds of outlets.
const (
	OutletJournald OutletKind = "journald"
	OutletSyslog   OutletKind = "syslog"
	OutletWebhook  OutletKind = "webhook"
	OutletCommand  OutletKind = "command"
	OutletOTLP     OutletKind = "otlp"
)

// Outlet is one way by which events leave the cluster. Each of its nodes delivers
// those that it wrote itself.
type Outlet struct {
	Name    string
	Kind    OutletKind
	Comment string
	Nodes   []cluster.NodeName // default: all nodes that are no witness
	Level   cluster.Level      // events of this weight or more
	Timeout time.Duration      // of one attempt
	Syslog  *SyslogOutlet      // set where Kind is OutletSyslog
	Webhook *WebhookOutlet     // set where Kind is OutletWebhook
	Command []string           // where Kind is OutletCommand: an absolute path and its arguments
	OTLP    *OTLPOutlet        // set where Kind is OutletOTLP
}

// SyslogOutlet is where a syslog daemon listens.
type SyslogOutlet struct {
	Network  string // unix, udp, tcp or tls
	Address  string // of unix the path of the socket, else HOST:PORT
	Facility string // a word of syslog: daemon, local0, …
	CA       string // tls: a file of certificates to trust; "": those of the system
}

// WebhookOutlet is where events are posted.
type WebhookOutlet struct {
	URL        string // https
	SecretFile string // holds the key of the signatures; "": they are not signed
	CA         string // a file of certificates to trust; "": those of the system
}

// OTLPOutlet is a collector of OpenTelemetry.
type OTLPOutlet struct {
	URL         string // of its traces: https, or http to this machine
	HeadersFile string // lines of NAME: VALUE; "": none
	CA          string // a file of certificates to trust; "": those of the system
}

// String returns where the outlet leads, for people.
func (o *Outlet) String() string {
	switch {
	case o.Syslog != nil && o.Syslog.Network == "unix":
		return "unix://" + o.Syslog.Address
	case o.Syslog != nil:
		return o.Syslog.Network + "://" + o.Syslog.Address
	case o.Webhook != nil:
		return o.Webhook.URL
	case o.OTLP != nil:
		return o.OTLP.URL
	}
	return strings.Join(o.Command, " ")
}

type outletKeys struct {
	src
	Comment rawText          `yaml:"comment" is:"line" doc:"a note for people"`
	Nodes   rawList[rawText] `yaml:"nodes" range:"1..32" is:"name" doc:"whose events it takes: each node delivers what it wrote itself" unless:"all nodes but witnesses"`
	Level   rawText          `yaml:"level" enum:"info,warn,error" default:"info" doc:"only events of this weight or more"`
	Timeout rawDuration      `yaml:"timeout" range:"100ms..10m" default:"10s" doc:"time limit of one attempt to deliver an event; it is tried again until it is delivered"`
}

type rawJournald struct{ outletKeys }

type rawSyslog struct {
	outletKeys
	To       rawText `yaml:"to" is:"syslog" default:"unix:///dev/log" doc:"where it listens: unix:///PATH, udp://HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT; without a port 514, with tls 6514. Only tls is not in the clear"`
	Facility rawText `yaml:"facility" enum:"daemon,user,auth,authpriv,local0,local1,local2,local3,local4,local5,local6,local7" default:"daemon" doc:"the facility that the messages have"`
	CA       rawText `yaml:"ca" is:"abs" doc:"a file of certificates (PEM) that vouch for it, with tls" unless:"those that the system trusts"`
}

type rawWebhook struct {
	outletKeys
	URL        rawText `yaml:"url" need:"true" is:"https" doc:"where events are posted, as JSON"`
	SecretFile rawText `yaml:"secret_file" is:"abs" doc:"a file on each node with the key by which the receiver knows who sends" unless:"events are not signed"`
	CA         rawText `yaml:"ca" is:"abs" doc:"a file of certificates (PEM) that vouch for the receiver" unless:"those that the system trusts"`
}

type rawOTLP struct {
	outletKeys
	URL         rawText `yaml:"url" need:"true" is:"otlp" doc:"where a collector takes traces by OTLP over HTTP; without a path /v1/traces. One of this machine may be http://127.0.0.1:4318"`
	HeadersFile rawText `yaml:"headers_file" is:"abs" doc:"a file on each node with lines of NAME: VALUE that are sent as headers, for example a key" unless:"none"`
	CA          rawText `yaml:"ca" is:"abs" doc:"a file of certificates (PEM) that vouch for the collector" unless:"those that the system trusts"`
}

type rawCommand struct {
	outletKeys
	Command rawList[rawText] `yaml:"command" need:"true" range:"1..32" is:"line" doc:"a program by its absolute path, and its arguments; it reads one event as JSON and ends with 0"`
}

var outletKinds = []variant{
	{string(OutletJournald), "the journal of systemd on the node", func() any { return new(rawJournald) }},
	{string(OutletSyslog), "a syslog daemon (RFC 5424)", func() any { return new(rawSyslog) }},
	{string(OutletWebhook), "an HTTPS server", func() any { return new(rawWebhook) }},
	{string(OutletCommand), "a program of the administrator", func() any { return new(rawCommand) }},
	{string(OutletOTLP), "a collector of OpenTelemetry, which gets a trace of each plan (OTLP over HTTP)", func() any { return new(rawOTLP) }},
}

// rawOutlet is one of the structs of outletKinds.
type rawOutlet struct {
	kind string
	spec any
}

func (o *rawOutlet) fill(string) {}

func (o *rawOutlet) decode(d *decoder, n *yaml.Node, f field) {
	o.kind, o.spec = d.variant(n, f, outletKinds)
}

// keys returns the keys that all kinds have, or nil where the kind was refused.
func (o *rawOutlet) keys() *outletKeys {
	switch s := o.spec.(type) {
	case *rawJournald:
		return &s.outletKeys
	case *rawSyslog:
		return &s.outletKeys
	case *rawWebhook:
		return &s.outletKeys
	case *rawCommand:
		return &s.outletKeys
	case *rawOTLP:
		return &s.outletKeys
	}
	return nil
}

func (b *builder) outlet(e *entry[rawOutlet]) Outlet {
	o := Outlet{Name: e.name, Kind: OutletKind(e.val.kind)}
	if k := e.val.keys(); k != nil {
		o.Comment, o.Nodes, o.Level, o.Timeout = k.Comment.val, b.nodeList(&k.Nodes), cluster.Level(k.Level.val), k.Timeout.val
	}
	switch s := e.val.spec.(type) {
	case *rawSyslog:
		network, address := syslogAddress(s.To.val)
		o.Syslog = &SyslogOutlet{Network: network, Address: address, Facility: s.Facility.val, CA: s.CA.val}
	case *rawWebhook:
		o.Webhook = &WebhookOutlet{URL: s.URL.val, SecretFile: s.SecretFile.val, CA: s.CA.val}
	case *rawCommand:
		for _, a := range s.Command.items {
			o.Command = append(o.Command, a.val)
		}
	case *rawOTLP:
		o.OTLP = &OTLPOutlet{URL: tracesAt(s.URL.val), HeadersFile: s.HeadersFile.val, CA: s.CA.val}
	}
	return o
}

// syslogAddress takes apart where a syslog daemon listens; "" where it was refused.
func syslogAddress(to string) (network, address string) {
	network, address, _ = strings.Cut(to, "://")
	if network == "unix" || network == "" {
		return network, address
	}
	u, err := url.Parse(to)
	if err != nil {
		return "", ""
	}
	host, port := u.Hostname(), "514"
	if network == "tls" {
		port = "6514"
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return network, host + ":" + cmp.Or(u.Port(), port)
}

// checkURL checks where an outlet posts to, like the example, and returns it; nil
// where there is none. A key belongs into the file that the other setting names.
func (b *builder) checkURL(text rawText, example, server, file string) *url.URL {
	u, err := url.Parse(text.val)
	switch {
	case text.val == "":
		return nil
	case err != nil || u.Hostname() == "":
		b.add(text.src, "write "+example, "%q is no address of %s", short(text.val), server)
		return nil
	case u.User != nil:
		b.add(text.src, "write the key into a file and name it with "+file, "the url of an outlet cannot hold a name or a password")
		return nil
	}
	return u
}

// checkOTLP checks what the form of the address does not say.
func (b *builder) checkOTLP(s *rawOTLP) {
	u := b.checkURL(s.URL, "https://HOST:4318", "a collector", "headers_file")
	switch {
	case u == nil:
	case u.Scheme == "http" && !ofThisMachine(u.Hostname()):
		b.add(s.URL.src, "write https://HOST:4318, or send to a collector of this machine, http://127.0.0.1:4318", "traces are not sent to %s in the clear", u.Hostname())
	case u.Scheme == "http" && s.CA.written():
		b.add(s.CA.src, "write url: https://HOST:4318, or remove it", "certificates are for https alone")
	}
	if s.Level.written() && s.Level.val != string(cluster.LevelInfo) {
		b.add(s.Level.src, "remove it", "a trace is made of all events of a plan, whatever their weight")
	}
}

func ofThisMachine(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// tracesAt returns where a collector takes traces.
func tracesAt(text string) string {
	if u, err := url.Parse(text); err == nil && strings.Trim(u.Path, "/") == "" && u.Host != "" {
		u.Path = "/v1/traces"
		return u.String()
	}
	return text
}

// checkOutlets tells outlets that lead nowhere.
func (b *builder) checkOutlets() {
	for i, e := range b.raw.Outlets.items {
		if k := e.val.keys(); k != nil {
			b.checkNodeList(&k.Nodes, false)
		}
		switch s := e.val.spec.(type) {
		case *rawSyslog:
			if s.CA.written() && s.To.val != "" && b.f.Outlets[i].Syslog.Network != "tls" {
				b.add(s.CA.src, "write to: tls://HOST:PORT, or remove it", "certificates are for tls alone")
			}
		case *rawWebhook:
			b.checkURL(s.URL, "https://HOST/PATH", "a web server", "secret_file")
		case *rawCommand:
			if len(s.Command.items) > 0 && s.Command.items[0].val != "" && !forms["abs"].pattern().MatchString(s.Command.items[0].val) {
				b.add(s.Command.items[0].src, "write the program with its whole path; no shell looks for it", "%q is no absolute path", short(s.Command.items[0].val))
			}
		case *rawOTLP:
			b.checkOTLP(s)
		}
	}
}

// adviseOutlets warns of events that others can read, or write.
func (b *builder) adviseOutlets() {
	for i, e := range b.raw.Outlets.items {
		switch s := e.val.spec.(type) {
		case *rawSyslog:
			switch b.f.Outlets[i].Syslog.Network {
			case "udp":
				b.warn(s.To.src, "write to: tls://HOST:PORT", "the events of outlet %s travel in the clear, and what is lost on the way is not sent again", e.name)
			case "tcp":
				b.warn(s.To.src, "write to: tls://HOST:PORT", "the events of outlet %s travel in the clear", e.name)
			}
		case *rawWebhook:
			if !s.SecretFile.written() {
				b.warn(e.src, "write secret_file: /etc/tasuki/"+e.name+"-secret", "the receiver of outlet %s cannot know who sends it events", e.name)
			}
		}
	}
}

func (f *File) outletSettings(top scope) {
	now := quietly("used from the next event on")
	for i := range f.Outlets {
		o := &f.Outlets[i]
		s := top.element("outlets", o.Name, strings.TrimSpace(fmt.Sprintf("%s %s", o.Kind, o)), func(old, _ string) Effect {
			if old == "" {
				return Effect{Kind: EffectNone, Text: fmt.Sprintf("outlet %s is new and begins with the next event", o.Name)}
			}
			return Effect{Kind: EffectNone, Text: fmt.Sprintf("outlet %s is gone; what it has not delivered yet it never will", o.Name)}
		}, now)
		s.comment(o.Comment)
		s.set("kind", o.Kind)
		s.set("nodes", o.Nodes)
		s.set("level", o.Level)
		s.set("timeout", o.Timeout)
		switch {
		case o.Syslog != nil:
			s.set("to", o)
			s.set("facility", o.Syslog.Facility)
			s.set("ca", o.Syslog.CA)
		case o.Webhook != nil:
			s.set("url", o.Webhook.URL)
			s.set("secret_file", o.Webhook.SecretFile)
			s.set("ca", o.Webhook.CA)
		case o.Command != nil:
			s.set("command", slices.Clone(o.Command))
		case o.OTLP != nil:
			s.set("url", o.OTLP.URL)
			s.set("headers_file", o.OTLP.HeadersFile)
			s.set("ca", o.OTLP.CA)
		}
	}
}
