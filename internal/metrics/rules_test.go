package metrics

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	yaml "go.yaml.in/yaml/v4"
)

const (
	rulesFile     = "../../packaging/prometheus/tasuki.rules.yaml"
	dashboardFile = "../../packaging/grafana/tasuki.json"
)

// metricName is the label that holds the name of a metric.
const metricName = "__name__"

// scraped is which labels and values a scrape of counted has, by metric.
type scraped map[string]map[string]map[string]bool

func scrapedBy(t *testing.T) scraped {
	t.Helper()
	gathered, err := counted().registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := scraped{"up": {}}
	for _, f := range gathered {
		all := map[string]map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if all[l.GetName()] == nil {
					all[l.GetName()] = map[string]bool{}
				}
				all[l.GetName()][l.GetValue()] = true
			}
		}
		out[f.GetName()] = all
		if f.GetType().String() == "HISTOGRAM" {
			for _, end := range []string{"_bucket", "_sum", "_count"} {
				out[f.GetName()+end] = all
			}
		}
	}
	return out
}

// Labels that Prometheus itself adds, and such whose values are fixed, so that one
// that nobody tells is a mistake.
var (
	added = []string{"instance", "job", "le"}
	fixed = []string{"phase", "state", "verdict", "reason", "op", "witness"}
)

// check says what an expression asks for that no node tells, and returns the labels
// that its result has.
func (s scraped) check(t *testing.T, where, expr string) (has []string) {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %s: %v", where, expr, err)
		return nil
	}
	known := map[string]bool{}
	for _, selector := range parser.ExtractSelectors(parsed) {
		name := selector[slices.IndexFunc(selector, func(m *labels.Matcher) bool { return m.Name == metricName })].Value
		family, there := s[name]
		if !there {
			t.Errorf("%s: no node tells %s", where, name)
			continue
		}
		for label := range family {
			known[label] = true
		}
		for _, m := range selector {
			_, of := family[m.Name]
			switch {
			case m.Name == metricName || slices.Contains(added, m.Name):
			case !of:
				t.Errorf("%s: %s has no label %s", where, name, m.Name)
			case slices.Contains(fixed, m.Name) && !family[m.Name][m.Value]:
				t.Errorf("%s: %s of %s is never %q", where, m.Name, name, m.Value)
			}
		}
	}
	var by []string
	parser.Inspect(parsed, func(n parser.Node, _ []parser.Node) error {
		if a, is := n.(*parser.AggregateExpr); is && by == nil && !a.Without {
			for _, label := range a.Grouping {
				if !known[label] && !slices.Contains(added, label) {
					t.Errorf("%s: nothing there has the label %s", where, label)
				}
			}
			by = append([]string{""}, a.Grouping...)
		}
		return nil
	})
	if by != nil {
		return by
	}
	for label := range known {
		has = append(has, label)
	}
	return append(has, added...)
}

var labelsShown = regexp.MustCompile(`\$labels\.([a-z_]+)`)

// The alerts that are shipped ask for what a node tells.
func TestRules(t *testing.T) {
	data, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Load(data, &file, yaml.WithKnownFields()); err != nil {
		t.Fatal(err)
	}
	s, seen := scrapedBy(t), map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			has := s.check(t, r.Alert, r.Expr)
			if seen[r.Alert] || r.Alert == "" || r.Annotations["summary"] == "" || r.Labels["severity"] != "page" && r.Labels["severity"] != "ticket" {
				t.Errorf("%s: it stands there twice, or lacks a summary or its severity: %v %v", r.Alert, r.Annotations, r.Labels)
			}
			seen[r.Alert] = true
			for _, text := range r.Annotations {
				for _, m := range labelsShown.FindAllStringSubmatch(text, -1) {
					if !slices.Contains(has, m[1]) {
						t.Errorf("%s: its result has no label %s", r.Alert, m[1])
					}
				}
			}
		}
	}
	if len(seen) < 20 {
		t.Errorf("only %d alerts", len(seen))
	}
	if promtool, err := exec.LookPath("promtool"); err == nil {
		if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", rulesFile).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// So does the dashboard.
func TestDashboard(t *testing.T) {
	data, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			ID          int
			Type, Title string
			Targets     []struct {
				Expr, LegendFormat string
			}
		}
	}
	if err := json.Unmarshal(data, &board); err != nil {
		t.Fatal(err)
	}
	s, ids, shown := scrapedBy(t), map[int]bool{}, 0
	for _, p := range board.Panels {
		if ids[p.ID] {
			t.Errorf("%s: another panel has its id", p.Title)
		}
		ids[p.ID] = true
		if len(p.Targets) == 0 && p.Type != "row" {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			shown++
			has := s.check(t, p.Title, strings.NewReplacer("$__rate_interval", "5m", "$cluster", "c").Replace(target.Expr))
			for _, m := range regexp.MustCompile(`{{([a-z_]+)}}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				if !slices.Contains(has, m[1]) {
					t.Errorf("%s: its result has no label %s", p.Title, m[1])
				}
			}
		}
	}
	if shown < 20 {
		t.Errorf("only %d queries", shown)
	}
}
