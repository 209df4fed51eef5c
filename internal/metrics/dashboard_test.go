package metrics

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// TestDashboardHoldsItsSchema: the dashboard has the fields that Grafana's published
// schema wants, with values that it allows, and no others. Only kinds of panels and
// queries that are known here are held against it, so others fail.
func TestDashboardHoldsItsSchema(t *testing.T) {
	data, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	known := cog.NewRuntime()
	known.RegisterPanelcfgVariant(stat.VariantConfig())
	known.RegisterPanelcfgVariant(statetimeline.VariantConfig())
	known.RegisterPanelcfgVariant(timeseries.VariantConfig())
	known.RegisterDataqueryVariant(prometheus.VariantConfig())
	holds := func(text string) string {
		//lint:ignore SA1019 the file has the schema that every Grafana in use reads
		var d dashboard.Dashboard
		if err := d.UnmarshalJSONStrict([]byte(text)); err != nil {
			return err.Error()
		}
		if err := d.Validate(); err != nil {
			return err.Error()
		}
		return ""
	}
	if why := holds(string(data)); why != "" {
		t.Fatal(why)
	}
	var d struct {
		Panels []struct {
			Type    string
			Targets []struct{ Datasource struct{ Type string } }
		}
	}
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Panels {
		if _, is := known.ConfigForPanelcfgVariant(p.Type); !is && p.Type != "row" {
			t.Errorf("the options of panels of type %s are not held against anything", p.Type)
		}
		for _, q := range p.Targets {
			if q.Datasource.Type != "prometheus" {
				t.Errorf("a panel of type %s has a query of type %q", p.Type, q.Datasource.Type)
			}
		}
	}
	for right, wrong := range map[string]string{
		`"colorMode": "background"`: `"colourMode": "background"`, `"orientation": "auto"`: `"orientation": 5`,
		`"expr": "max(`: `"expression": "max(`, `"graphTooltip": 1`: `"graphTooltip": "some"`, `"showLegend": true,`: ``,
	} {
		if broken := strings.Replace(string(data), right, wrong, 1); broken == string(data) || holds(broken) == "" {
			t.Errorf("%s in the place of %s is not noticed", wrong, right)
		}
	}
}
