package text

// heap is a binary heap, the least element first.
type heap[T interface{ Less(T) bool }] []T

func (h *heap[T]) push(x T) {
	*h = append(*h, x)
	a := *h
	i := len(a) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !x.Less(a[up]) {
			break
		}
		a[i] = a[up]
		i = up
	}
	a[i] = x
}

func (h *heap[T]) pop() T {
	a := *h
	top, n := a[0], len(a)-1
	x := a[n]
	a = a[:n]
	*h = a
	if n == 0 {
		return top
	}
	i := 0
	for {
		c := 2*i + 1
		if c >= n {
			break
		}
		if c+1 < n && a[c+1].Less(a[c]) {
			c++
		}
		if !a[c].Less(x) {
			break
		}
		a[i] = a[c]
		i = c
	}
	a[i] = x
	return top
}
