package bench

import "github.com/carousel-ml/carousel/cell"

// The minimum time of a task: the multiply-adds at their peak rate, or the
// weights through the level of memory that holds them, whichever is longer.

// traffic is bytes to be read from the level of memory that holds a footprint
// of bytes.
type traffic struct{ bytes, footprint float64 }

// memory is main memory, the level beyond the caches.
const memory = "memory"

// usable is the fraction of a cache available to weights: other data needs the
// rest.
const usable = 0.75

// level returns the level that holds a footprint and its rate in bytes per
// second.
func (m *Machine) level(r *Rate, footprint float64) (name string, rate float64) {
	switch {
	case footprint <= usable*float64(r.Threads*m.L2):
		return "l2", 1e9 * r.L2
	case footprint <= usable*float64(m.L3):
		return "l3", 1e9 * r.L3
	}
	if rate, ok := r.streams[footprint]; ok {
		return memory, 1e9 * rate
	}
	return memory, 1e9 * r.Memory
}

// bound returns the minimum time in seconds for flop operations and the traffic
// on r.Threads threads, and which limit sets it: "fma", "l2", "l3" or "memory".
func (m *Machine) bound(r *Rate, flop float64, list []traffic) (seconds float64, name string) {
	seconds, name = flop/(1e9*r.Peak), "fma"
	stream, slowest, at := 0.0, 0.0, ""
	for _, t := range list {
		level, rate := m.level(r, t.footprint)
		s := t.bytes / rate
		if stream += s; s > slowest {
			slowest, at = s, level
		}
	}
	if stream > seconds {
		return stream, at
	}
	return seconds, name
}

// traffic returns the minimum that a pass must read. In a single step every
// weight is read once. Over many steps the recurrent matrices are read again at
// each step, one layer after the other; the other matrices are used for all
// steps at once.
func (s Shape) traffic(kind cell.Kind, train bool) []traffic {
	weights, recurrent := s.weightBytes(kind), s.recurrentBytes(kind)
	passes := 1.0
	var list []traffic
	if train {
		// Once more in the backward pass, to write the gradient; in the
		// optimizer weight, gradient and two moments are read and written.
		passes = 2
		list = append(list, traffic{9 * weights, 4 * weights})
	}
	if s.T == 1 {
		return append(list, traffic{passes * weights, weights})
	}
	return append(list, traffic{passes * float64(s.T*s.L) * recurrent, recurrent})
}
