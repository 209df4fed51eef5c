package outlet

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/leodido/go-syslog/v4/rfc5424"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// facilities are the numbers of the words that the cluster file takes.
var facilities = map[string]uint8{
	"user": 1, "daemon": 3, "auth": 4, "authpriv": 10, "local0": 16, "local1": 17, "local2": 18, "local3": 19,
	"local4": 20, "local5": 21, "local6": 22, "local7": 23,
}

const (
	// dataID names our structured data. 32473 is the number that RFC 5612 keeps for
	// examples: Tasuki has none of its own.
	dataID = "tasuki@32473"
	// maxSequence is the highest sequenceId of RFC 5424; 1 follows it.
	maxSequence = 1<<31 - 1
	maxName     = 32 // letters of a MSGID and of the name of a parameter
)

// newSyslog returns the sink for how the daemon listens.
func newSyslog(c config.Outlet) sink {
	s := c.Syslog
	facility := facilities[s.Facility]
	if s.Network == "tcp" || s.Network == "tls" {
		return &stream{c: *s, facility: facility}
	}
	return &datagrams{c: *s, facility: facility}
}

// datagrams sends each event as one packet, or as a line to a socket of this
// machine that takes no packets.
type datagrams struct {
	sure
	c        config.SyslogOutlet
	facility uint8
	conn     net.Conn // nil: not open
	line     bool     // it takes lines
}

// deliver implements sink.
func (s *datagrams) deliver(ctx context.Context, d *Delivery) error {
	msg, err := syslogMessage(d, s.facility)
	if err != nil {
		return err
	}
	if s.conn == nil {
		if err := s.open(ctx); err != nil {
			return fmt.Errorf("reach syslog: %w", err)
		}
	}
	if s.line {
		msg += "\n"
	}
	if until, limited := ctx.Deadline(); limited {
		err = s.conn.SetWriteDeadline(until)
	}
	if err == nil {
		_, err = s.conn.Write([]byte(msg))
	}
	if err != nil {
		s.close()
		return fmt.Errorf("write to syslog: %w", err)
	}
	return nil
}

func (s *datagrams) open(ctx context.Context) (err error) {
	var dialer net.Dialer
	if s.c.Network == "udp" {
		s.conn, err = dialer.DialContext(ctx, "udp", s.c.Address)
		return err
	}
	if s.conn, err = dialer.DialContext(ctx, "unixgram", s.c.Address); err == nil {
		s.line = false
		return nil
	}
	packets := err
	if s.conn, err = dialer.DialContext(ctx, "unix", s.c.Address); err != nil {
		return packets
	}
	s.line = true
	return nil
}

// close implements sink.
func (s *datagrams) close() {
	if s.conn != nil {
		_ = s.conn.Close()
		s.conn = nil
	}
}

// syslogMessage writes an event as RFC 5424 says.
func syslogMessage(d *Delivery, facility uint8) (string, error) {
	e := &d.Event
	severity := map[cluster.Level]uint8{cluster.LevelError: 3, cluster.LevelWarn: 4}[e.Level]
	if severity == 0 {
		severity = 6
	}
	m := &rfc5424.SyslogMessage{}
	m.SetVersion(1)
	m.SetPriority(facility*8 + severity)
	m.SetTimestamp(e.Time.UTC().Format("2006-01-02T15:04:05.000000Z07:00"))
	m.SetHostname(string(e.Node))
	m.SetAppname("tasuki")
	m.SetMsgID(paramName(e.Code))
	// The setters of the library leave out what holds a quote; what writes the message
	// down escapes it.
	data := map[string]string{}
	m.StructuredData = &map[string]map[string]string{
		"meta": {"sequenceId": strconv.FormatUint((d.Number-1)%maxSequence+1, 10)}, dataID: data,
	}
	param := func(name, value string) {
		if value != "" {
			data[paramName(name)] = oneLine(value)
		}
	}
	param("cluster", string(d.Cluster))
	param("event", string(e.ID))
	param("number", strconv.FormatUint(d.Number, 10))
	param("module", e.Module)
	param("cause", string(e.Cause))
	if d.Missed > 0 {
		param("missed", strconv.FormatUint(d.Missed, 10))
	}
	for _, k := range slices.Sorted(maps.Keys(e.Fields)) {
		param("field_"+k, e.Fields[k])
	}
	m.SetMessage(oneLine(e.Text))
	text, err := m.String()
	if err != nil {
		return "", fmt.Errorf("write event %s for syslog: %w", e.ID, err)
	}
	return text, nil
}

// paramName is a name as RFC 5424 takes it.
func paramName(k string) string {
	k = strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || r == '=' || r == ']' || r == '"' {
			return '_'
		}
		return r
	}, k)
	return k[:min(len(k), maxName)]
}

// oneLine replaces what would break a line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// frame is a message with its length before it, as RFC 5425 and 6587 say.
func frame(msg string) []byte { return []byte(strconv.Itoa(len(msg)) + " " + msg) }
