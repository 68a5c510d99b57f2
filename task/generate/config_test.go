package generate

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

// A configuration that was written before settings got their names of today.
func TestOldConfigOpens(t *testing.T) {
	raw, err := os.ReadFile("testdata/config_before_names.json")
	if err != nil {
		t.Fatal(err)
	}
	var got Config
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	want := Defaults()
	want.Tokens, want.BPTT = "word", 48
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if err := json.Unmarshal([]byte(`{"unknown": 1}`), &got); err == nil {
		t.Error("an unknown setting is accepted")
	}
}
