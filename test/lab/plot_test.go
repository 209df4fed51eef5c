package lab_test

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"testing"
)

// The plot of the figures of BenchmarkMirror: for each load a bar a variant, how
// many operations a second of what the front end alone does, and beside it how long
// they take on a logarithmic scale: the bar to the median, lines to the 99th and
// the 99.9th percentile.
const (
	plotBar, plotGap    = 12, 14
	plotLeft, plotWidth = 130, 330
	plotMiddle          = 70 // between the two halves
	leastUS, mostUS     = 50., 100_000.
	plotText, plotSmall = `font-family="sans-serif" font-size="12"`, `font-family="sans-serif" font-size="10" fill="#777"`
	plotMost            = 160. // per cent
	plotTop, plotBottom = 48, 30
)

// plotColours are those of the variants.
var plotColours = map[string]string{"loop": "#8a8d90", "front": "#0066cc", "mirror": "#3e8635"}

func plot(w io.Writer, rows []*benchRow) error {
	front := map[string]float64{}
	var loads []string
	for _, r := range rows {
		if len(loads) == 0 || loads[len(loads)-1] != r.Load {
			loads = append(loads, r.Load)
		}
		if r.Variant == "front" {
			front[r.Load] = r.IOPS
		}
	}
	height := plotTop + len(rows)*plotBar + len(loads)*plotGap + plotBottom
	right := plotLeft + plotWidth + plotMiddle
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d"><rect width="100%%" height="100%%" fill="#fff"/>`+"\n", right+plotWidth+30, height)
	fmt.Fprintf(&b, `<text x="%d" y="18" %s>operations a second, of the front end alone</text><text x="%d" y="18" %s>time of one: median, 99 %%, 99.9 %%</text>`+"\n", plotLeft, plotText, right, plotText)
	axis := func(x float64, label string) {
		fmt.Fprintf(&b, `<path d="M%.1f %dV%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle" %s>%s</text>`+"\n", x, plotTop-8, height-plotBottom, x, plotTop-12, plotSmall, label)
	}
	for p := 0.; p <= plotMost; p += 20 {
		axis(plotLeft+p/plotMost*plotWidth, fmt.Sprintf("%.0f %%", p))
	}
	at := func(us float64) float64 {
		return float64(right) + plotWidth*math.Log(max(us, leastUS)/leastUS)/math.Log(mostUS/leastUS)
	}
	for us := 100.; us <= mostUS; us *= 10 {
		axis(at(us), fmt.Sprintf("%g ms", us/1000))
	}
	y, last := plotTop-plotGap, ""
	for _, r := range rows {
		if r.Load != last {
			y, last = y+plotGap, r.Load
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" %s>%s</text>`+"\n", plotLeft-8, y+plotBar*3/2+4, plotText, r.Load)
		}
		share := r.IOPS / front[r.Load] * 100
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"><title>%s, %s: %.0f a second, %.0f %%</title></rect>`+"\n",
			plotLeft, y, min(share, plotMost)/plotMost*plotWidth, plotBar-2, plotColours[r.Variant], r.Load, r.Variant, r.IOPS, share)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/><path d="M%.1f %dH%.1fM%.1f %dv%dM%.1f %dv%d" stroke="%s"/>`+"\n",
			right, y, at(r.P50US)-float64(right), plotBar-2, plotColours[r.Variant], at(r.P50US), y+plotBar/2-1, at(r.P999US),
			at(r.P99US), y, plotBar-2, at(r.P999US), y+2, plotBar-6, plotColours[r.Variant])
		y += plotBar
	}
	x := plotLeft
	for _, v := range variants {
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="10" height="10" fill="%s"/><text x="%d" y="%d" %s>%s</text>`+"\n", x, height-18, plotColours[v.Name], x+14, height-9, plotText, v.Name)
		x += 90
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func writePlot(path string, rows []*benchRow) error {
	var b strings.Builder
	if err := plot(&b, rows); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func TestPlot(t *testing.T) {
	var rows []*benchRow
	for _, load := range []string{"x", "y"} {
		for i, v := range variants {
			rows = append(rows, &benchRow{Load: load, Variant: v.Name, benchRun: benchRun{fioResult: fioResult{IOPS: 1000 / float64(i+1), P50US: 100, P99US: 1000, P999US: 10000}}})
		}
	}
	var b strings.Builder
	must(t, plot(&b, rows))
	for _, want := range []string{"x, loop: 1000 a second, 200 %", "y, front: 500 a second, 100 %", "x, mirror: 333 a second, 67 %"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
}
