// Package agenda is what is due when, in a world whose time is a value.
package agenda

import (
	"container/heap"
	"time"
)

// Agenda holds what is to be done, and the time of its world. The zero value is
// empty, at time 0.
type Agenda struct {
	now   time.Duration
	items items
	order uint64
}

// Now is the time of the world, since it began.
func (a *Agenda) Now() time.Duration { return a.now }

// After has do called d from now: in the order of the calls of After where several
// are due at the same time.
func (a *Agenda) After(d time.Duration, do func()) {
	a.order++
	heap.Push(&a.items, item{at: a.now + d, order: a.order, do: do})
}

// Next does what is due next, at its time, and says whether anything was due until
// end.
func (a *Agenda) Next(end time.Duration) bool {
	if len(a.items) == 0 || a.items[0].at > end {
		return false
	}
	it := heap.Pop(&a.items).(item)
	a.now = it.at
	it.do()
	return true
}

// Reach lets time pass until end, unless it has already.
func (a *Agenda) Reach(end time.Duration) { a.now = max(a.now, end) }

type item struct {
	at    time.Duration
	order uint64
	do    func()
}

type items []item

func (q items) Len() int { return len(q) }
func (q items) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q items) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *items) Push(x any)   { *q = append(*q, x.(item)) }
func (q *items) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}
