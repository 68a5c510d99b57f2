package task_test

import (
	"math"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/task"
)

// The figure is one of sums over rows, as often as each is in a list.
func TestTally(t *testing.T) {
	rate := &task.Tally{Rows: [][]float64{{1, 4}, {0, 2}, {3, 3}}, Of: func(s []float64) float64 { return s[0] / s[1] }}
	for _, c := range []struct{ got, want float64 }{
		{rate.Value(), 4. / 9}, {rate.Resampled([]int{0, 1, 2}), 4. / 9},
		{rate.Resampled([]int{0, 0, 1}), 2. / 10}, {rate.Resampled([]int{2}), 1},
	} {
		if math.Abs(c.got-c.want) > 1e-15 {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
	none := &task.Trained{Kind: &task.Kind{About: task.About{Name: "sums"}}}
	if _, err := none.Tally(t.Context(), nil, task.All, nil); err == nil || !strings.Contains(err.Error(), `task "sums"`) {
		t.Errorf("a task without Tally: %v", err)
	}
}
