package main

import (
	"math"
	"slices"
)

// A network moves the messages of exchanges as fluids: flows share the ports that they pass, fairly
// (max-min), and those from one rank to another go one after another, as in a TCP connection.
type network struct {
	link
	ranks int
	moved float64 // bytes that have arrived
}

// A turn is an exchange that a rank does not begin before ready.
type turn struct {
	exchange
	ready []float64 // by rank
}

type flow struct {
	turn, from, to int
	at             float64 // when it is given to the connection
	left, rate     float64
	before         *flow // of the same connection
	done           bool
}

// run has all ranks make the exchanges one after another, and returns when each ended, by turn and rank: when
// the rank's messages have left and those of others have come.
// It is a simulation of discrete events: a flow begins, a flow ends, a message arrives.
func (n *network) run(turns []turn) [][]float64 {
	type arrival struct {
		turn, rank int
		at         float64
	}
	ends, begun, missing, latest := n.table(len(turns)), n.table(len(turns)), n.table(len(turns)), n.table(len(turns))
	var waiting, active []*flow
	var arriving []arrival
	last := map[[2]int]*flow{}
	next := make([]int, n.ranks) // the turn that a rank is in, or waits to begin
	var enter func(rank int, at float64)
	// settle ends a rank's turn when nothing is missing, and begins the next one.
	settle := func(rank int) {
		i := next[rank]
		if begun[i][rank] < 0 || missing[i][rank] > 0 {
			return
		}
		t := &turns[i]
		end := max(latest[i][rank], begun[i][rank]+float64(t.peers)*n.message) + t.added*n.sum
		ends[i][rank] = end
		if next[rank]++; next[rank] < len(turns) {
			enter(rank, end)
		}
	}
	enter = func(rank int, at float64) {
		i := next[rank]
		at = max(at, turns[i].ready[rank])
		begun[i][rank] = at
		for k, to := range turns[i].to(rank) {
			f := &flow{turn: i, from: rank, to: to, at: at + float64(k+1)*n.message, left: turns[i].bytes, before: last[[2]int{rank, to}]}
			last[[2]int{rank, to}] = f
			waiting = append(waiting, f)
		}
		settle(rank)
	}
	for i := range turns {
		for r := range n.ranks {
			begun[i][r], missing[i][r] = -1, float64(2*turns[i].peers)
		}
	}
	for r := range n.ranks {
		if len(turns) > 0 {
			enter(r, 0)
		}
	}
	for now := 0.0; len(waiting)+len(active)+len(arriving) > 0; {
		// What can begin begins.
		waiting = slices.DeleteFunc(waiting, func(f *flow) bool {
			begins := f.at <= now && (f.before == nil || f.before.done)
			if begins {
				active = append(active, f)
			}
			return begins
		})
		n.share(active)
		then := math.Inf(1)
		for _, f := range waiting {
			if f.at > now {
				then = min(then, f.at)
			}
		}
		for _, a := range arriving {
			then = min(then, a.at)
		}
		for _, f := range active {
			then = min(then, now+f.left/f.rate)
		}
		before, step := now, then-now
		now = then
		active = slices.DeleteFunc(active, func(f *flow) bool {
			f.done = before+f.left/f.rate <= now
			if f.left -= f.rate * step; f.done {
				n.moved += turns[f.turn].bytes
				arriving = append(arriving, arrival{f.turn, f.from, now}, arrival{f.turn, f.to, now + n.alpha})
			}
			return f.done
		})
		var came []arrival
		arriving = slices.DeleteFunc(arriving, func(a arrival) bool {
			if a.at <= now {
				came = append(came, a)
			}
			return a.at <= now
		})
		for _, a := range came {
			missing[a.turn][a.rank]--
			latest[a.turn][a.rank] = max(latest[a.turn][a.rank], a.at)
			if next[a.rank] == a.turn {
				settle(a.rank)
			}
		}
	}
	return ends
}

func (n *network) table(rows int) [][]float64 {
	t := make([][]float64, rows)
	for i := range t {
		t[i] = make([]float64, n.ranks)
	}
	return t
}

// ports are those that a flow passes: of the link at both ends, or within a node.
func (n *network) ports(f *flow) [2]int {
	node := max(n.perNode, 1)
	if n.perNode > 1 && f.from/node == f.to/node {
		return [2]int{4*f.from + 2, 4*f.to + 3}
	}
	return [2]int{4 * (f.from / node), 4*(f.to/node) + 1}
}

// share sets the flows' rates, by filling: the port that allows its flows the least is full first.
func (n *network) share(flows []*flow) {
	free, users := map[int]float64{}, map[int]int{}
	for _, f := range flows {
		f.rate = 0
		for _, p := range n.ports(f) {
			free[p] = n.rate
			if p%4 >= 2 {
				free[p] = n.inside
			}
			users[p]++
		}
	}
	for open := len(flows); open > 0; {
		least := math.Inf(1)
		for p, k := range users {
			if k > 0 {
				least = min(least, free[p]/float64(k))
			}
		}
		full := map[int]bool{}
		for p, k := range users {
			full[p] = k > 0 && free[p]/float64(k) <= least*(1+1e-9)
		}
		for _, f := range flows {
			ports := n.ports(f)
			if f.rate > 0 || !full[ports[0]] && !full[ports[1]] {
				continue
			}
			f.rate = least
			open--
			for _, p := range ports {
				free[p] -= least
				users[p]--
			}
		}
	}
}
