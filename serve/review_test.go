package serve

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/serve/inference"
)

// put sets an entry, whatever was there.
func (r *repository) put(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries[e.name] = e
}

// A table of rows with different keys each would need memory for each key in each row: 24
// bytes times the square of the rows.
func TestRowsOfDifferentKeys(t *testing.T) {
	rows := func(n, keys int, each func(i, k int) string) (list []map[string]json.RawMessage) {
		for i := range n {
			row := map[string]json.RawMessage{}
			for k := range keys {
				row[each(i, k)] = json.RawMessage("1")
			}
			list = append(list, row)
		}
		return list
	}
	_, err := columnsOf(rows(1<<16, 1, func(i, _ int) string { return fmt.Sprint(i) }), nil)
	if fault := inference.AsError(err); fault == nil || fault.Code != inference.Invalid || !strings.Contains(fault.Msg, "65536 columns for 65536 rows") {
		t.Errorf("%v", err)
	}
	table, err := columnsOf(rows(1000, 1, func(i, _ int) string { return fmt.Sprint(i) }), nil)
	if err != nil || len(table) != 1000 || table[0].Len() != 1000 {
		t.Errorf("a small one: %d columns, %v", len(table), err)
	}
	table, err = columnsOf(rows(1<<15, 50, func(_, k int) string { return fmt.Sprint(k) }), nil)
	if err != nil || len(table) != 50 {
		t.Errorf("a large one: %d columns, %v", len(table), err)
	}
}

// A pipeline whose list of outputs is empty answers with those of its last stage, as one
// without a list does.
func TestPipelineOfNoOutputs(t *testing.T) {
	s := newTestServer(t, Options{})
	if err := s.AddPipeline(PipelineConfig{Name: "p", Outputs: []string{}, Stages: []StageConfig{{Model: "plain"}}}); err != nil {
		t.Fatal(err)
	}
	m, err := s.modelMetadata("p", "")
	if err != nil || len(m.Outputs) == 0 {
		t.Errorf("outputs %v, %v", m.GetOutputs(), err)
	}
}
