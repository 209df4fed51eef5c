package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong, or risky, in a cluster file. Line and
// Column count from 1; the column counts characters.
type Problem struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	What   string `json:"what"`
	Hint   string `json:"hint,omitempty"`
}

// String returns `file:line:column: what; hint`.
func (p Problem) String() string {
	s := fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.What)
	if p.Hint != "" {
		s += "; " + p.Hint
	}
	return s
}

// Errors is everything that is wrong with a cluster file, sorted by position.
type Errors []Problem

// Error returns one line for each problem.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// MaxProblems is how many problems of one file are told; what is beyond is
// only counted.
const MaxProblems = 100

// src is where a value stands in the file. The zero value is nowhere: the value
// was not written.
type src struct{ line, col int }

func (s src) written() bool { return s.line > 0 }

// problems collects what is wrong (errs) and what is only risky (warns).
type problems struct {
	file        string
	errs, warns []Problem
}

func (p *problems) add(at src, hint, format string, args ...any) {
	p.errs = append(p.errs, p.problem(at, hint, format, args...))
}

func (p *problems) warn(at src, hint, format string, args ...any) {
	p.warns = append(p.warns, p.problem(at, hint, format, args...))
}

func (p *problems) problem(at src, hint, format string, args ...any) Problem {
	return Problem{File: p.file, Line: max(at.line, 1), Column: max(at.col, 1), What: fmt.Sprintf(format, args...), Hint: hint}
}

// sorted returns the list by position, each problem once, with at most
// MaxProblems entries.
func sorted(list []Problem) []Problem {
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.What, b.What))
	})
	list = slices.Compact(list)
	if over := len(list) - MaxProblems; over > 0 {
		last := list[MaxProblems-1]
		list = append(list[:MaxProblems-1:MaxProblems-1], Problem{
			File: last.File, Line: last.Line, Column: last.Column,
			What: fmt.Sprintf("%d more problems from here on", over+1), Hint: "correct the ones above first",
		})
	}
	return list
}
