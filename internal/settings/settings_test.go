package settings

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Layers int `json:"layers,omitempty" range:"1..16" group:"Model" help:"layers"`
}

type sample struct {
	inner                // unexported, but its fields are settings
	Share  float64       `json:"share" range:"(0..1]" group:"Model" help:"a share" was:"portion,part"`
	Open   float64       `json:"open" range:"[0..1)" help:"h"`
	Both   []float64     `json:"both" range:"(0..1)" help:"levels"`
	Length int           `json:"length" range:"0|3..1e6" help:"steps (0: by the data)"`
	Many   int           `json:"many" range:"-1.." help:"how many"`
	Clip   float64       `json:"clip" range:"0.." help:"a bound"`
	Time   time.Duration `json:"time" range:"0s..1h" help:"how long"`
	Pool   string        `json:"pool" oneof:"(as it comes),max (a, b),mean" help:"how"`
	Kinds  []string      `json:"kinds" oneof:"a,b" help:"which"`
	Case   string        `json:"case" help:"letters" was:"lower true=lower false=keep,case UP=upper"`
	Stop   []string      `json:"stop" items:"whole" value:"text" help:"ends"`
	Skip   func()        `json:"skip"`
	Young  int           `json:"young" before:"3" help:"h"`
	Hidden int           `json:"-"`
	Plain  int
}

func valid() *sample {
	return &sample{inner: inner{Layers: 1}, Share: 1, Both: []float64{0.5}, Kinds: []string{"a"}}
}

func TestHelpNamesLists(t *testing.T) {
	Lists["letters"] = []string{"a", "b"}
	defer delete(Lists, "letters")
	var s struct {
		X int `json:"x" help:"{@letters}: one of {@letters}"`
	}
	if got := List(&s)[0].Help; got != "a, b: one of a, b" {
		t.Errorf("got %q", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("an unknown list does not panic")
		}
	}()
	var unknown struct {
		X int `json:"x" help:"{@digits}"`
	}
	List(&unknown)
}

func TestCheck(t *testing.T) {
	if err := Check(valid()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		set  func(s *sample)
		want string // "": it is right
	}{
		{func(s *sample) { s.Layers = 17 }, "layers: want a number from 1 to 16, got 17"},
		{func(s *sample) { s.Share = 0 }, "share: want a number above 0, up to 1, got 0"},
		{func(s *sample) { s.Share = math.NaN() }, "share: want a number above 0, up to 1, got NaN"},
		{func(s *sample) { s.Open = 1 }, "open: want a number from 0 to below 1, got 1"},
		{func(s *sample) { s.Open = math.Nextafter(1, 0) }, ""},
		{func(s *sample) { s.Both = []float64{0.1, 1} }, "both: want a number above 0 and below 1, got 1"},
		{func(s *sample) { s.Both = nil }, ""},
		{func(s *sample) { s.Length = 3 }, ""},
		{func(s *sample) { s.Length = 2 }, "length: want 0, or a number from 3 to 1000000, got 2"},
		{func(s *sample) { s.Many = math.MaxInt }, ""},
		{func(s *sample) { s.Many = -2 }, "many: want -1 or more, got -2"},
		{func(s *sample) { s.Clip = math.Inf(1) }, "clip: want 0 or more, got +Inf"},
		{func(s *sample) { s.Time = time.Hour }, ""},
		{func(s *sample) { s.Time = 2 * time.Hour }, "time: want a number from 0s to 1h, got 2h0m0s"},
		{func(s *sample) { s.Pool = "mean" }, ""},
		{func(s *sample) { s.Pool = "men" }, `pool: want max, mean, got "men"; did you mean mean?`},
		{func(s *sample) { s.Kinds = []string{"a", ""} }, `kinds: want a, b, got ""`},
	} {
		s := valid()
		c.set(s)
		got := ""
		if err := Check(s); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

func TestListAndDescribe(t *testing.T) {
	s := valid()
	list := List(s)
	var names []string
	for _, one := range list {
		names = append(names, one.Name)
	}
	if got := strings.Join(names, " "); got != "layers share open both length many clip time pool kinds case stop young" {
		t.Errorf("settings are %s", got)
	}
	for name, want := range map[string]string{
		"layers": "layers [1 to 16]",
		"share":  "a share [above 0, up to 1]",
		"length": "steps (0: by the data) [0, or 3 to 1000000]",
		"pool":   "how: max (a, b) or mean (empty: as it comes)",
		"many":   "how many [-1 or more]",
	} {
		if got := Named(list, name).Describe(); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if err := Named(list, "stop").Assign(`a, "b"`, " c", `\n`); err != nil || !reflect.DeepEqual(s.Stop, []string{`a, "b"`, " c", "\n"}) {
		t.Errorf("stop is %q, %v", s.Stop, err)
	}
	if err := Named(list, "kinds").Assign("a,b", "b"); err != nil || len(s.Kinds) != 3 {
		t.Errorf("kinds is %q, %v", s.Kinds, err)
	}
	var b strings.Builder
	WriteTable(&b, list[:1], (*Setting).Flag)
	if want := "| Setting | Default | Meaning |\n|---|---|---|\n| `layers` | `1` | layers [1 to 16] |\n"; b.String() != want {
		t.Errorf("got %q", b.String())
	}
}

func TestWrongTagsPanic(t *testing.T) {
	for _, ptr := range []any{
		&struct {
			A int `json:"a" range:"1..x"`
		}{}, &struct {
			A int `json:"a" range:"2..1"`
		}{}, &struct {
			A int `json:"a" range:"([1..2"`
		}{}, &struct {
			A time.Duration `json:"a" range:"1..2"`
		}{},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%T is accepted", ptr)
				}
			}()
			List(ptr)
		}()
	}
}

func TestDecode(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{"share": 0.5}`, ""},
		{`{"part": 0.5}`, ""},
		{`{"portion": 0.5}`, ""},
		{`{"part": 0.5, "share": 0.5}`, "part and share are one setting"},
		{`{"shard": 0.5}`, "unknown field"},
		{`{"part": "x"}`, "cannot unmarshal"},
		{`[]`, "cannot unmarshal"},
	} {
		var s sample
		err := Decode(json.RawMessage(c.text), &s)
		switch {
		case c.want == "" && (err != nil || s.Share != 0.5):
			t.Errorf("%s: %v, %v", c.text, s.Share, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %q", c.text, err, c.want)
		}
	}
}

// Older names may come with older values.
func TestDecodeValues(t *testing.T) {
	for text, want := range map[string]string{`{"lower": true}`: "lower", `{"lower": false}`: "keep", `{"lower": "upper"}`: "upper", `{"case": "true"}`: "true", `{"case": "UP"}`: "upper"} {
		var s sample
		if err := Decode(json.RawMessage(text), &s); err != nil || s.Case != want {
			t.Errorf("%s: got %q, %v, want %q", text, s.Case, err, want)
		}
	}
}

// A setting that older versions did not have is what they did without it.
func TestDecodeYoung(t *testing.T) {
	for _, c := range []struct {
		text   string
		preset int
		want   int
	}{{`{}`, 0, 3}, {`{"young": 0}`, 0, 0}, {`{"young": 5}`, 0, 5}, {`{}`, 7, 7}} {
		s := sample{Young: c.preset}
		if err := Decode(json.RawMessage(c.text), &s); err != nil || s.Young != c.want {
			t.Errorf("%s over %d: got %d, %v, want %d", c.text, c.preset, s.Young, err, c.want)
		}
	}
}
