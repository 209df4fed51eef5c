package config

import (
	"fmt"
	"slices"
	"strings"
)

// hint is didYouMean, and nothing once there are more problems than are shown.
func (p *problems) hint(written string, known []string) string {
	if len(p.errs) >= MaxProblems {
		return ""
	}
	return didYouMean(written, known)
}

// didYouMean returns a hint that names the known word nearest to the one
// written, or all of them if none is near.
func didYouMean(written string, known []string) string {
	if best := nearest(written, known); best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return oneOf(known)
}

// nearest returns the known word that somebody who wrote this meant, or "".
func nearest(written string, known []string) string {
	best, bestDist := "", 1+max(2, len(written)/3)
	for _, k := range known {
		if len(k)-len(written) > bestDist && !strings.HasPrefix(k, written) && !strings.HasSuffix(k, written) || len(written)-len(k) >= bestDist {
			continue
		}
		d := distance(strings.ToLower(written), strings.ToLower(k))
		if len(written) > 2 && (strings.HasPrefix(k, written) || strings.HasSuffix(k, written)) {
			d = min(d, 1)
		}
		if d < bestDist && d < len(k) {
			best, bestDist = k, d
		}
	}
	return best
}

// oneOf returns a hint that lists the words.
func oneOf(known []string) string {
	switch len(known) {
	case 0:
		return "there is none that could be named here"
	case 1:
		return "the only one is " + known[0]
	}
	const most = 20
	if len(known) > most {
		known = append(slices.Clone(known[:most-1]), fmt.Sprintf("%d more", len(known)-most+1))
	}
	return "one of " + strings.Join(known[:len(known)-1], ", ") + " or " + known[len(known)-1]
}

// distance is the number of letters to change, insert, remove or swap with
// their neighbor to come from a to b. Words over 64 bytes are infinitely far.
func distance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	var d [longest + 1][longest + 1]uint8
	for i := range len(a) + 1 {
		for j := range len(b) + 1 {
			switch {
			case i == 0 || j == 0:
				d[i][j] = uint8(i + j)
			case a[i-1] == b[j-1]:
				d[i][j] = d[i-1][j-1]
			default:
				d[i][j] = 1 + min(d[i-1][j-1], d[i-1][j], d[i][j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return int(d[len(a)][len(b)])
}
