package keywords

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

// Configurations that were written before settings got their names of today.
func TestOldConfigsOpen(t *testing.T) {
	raw, err := os.ReadFile("testdata/config_before_names.json")
	if err != nil {
		t.Fatal(err)
	}
	var c Config
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	want := Defaults()
	want.SplitColumn, want.Holdout, want.Frame, want.StackStride, want.WarmupShare = "fold", 0.25, 30, 2, 0.07
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if err := json.Unmarshal([]byte(`{"unknown": 1}`), &c); err == nil {
		t.Error("an unknown setting is accepted")
	}
}
