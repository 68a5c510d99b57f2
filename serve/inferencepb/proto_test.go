package inferencepb

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestNumbers compares the messages with those of tritonclient, which
// internal/golden/gen/inference.py wrote: whatever is here has its name, number, type,
// label and oneof, and nothing of the service is missing. Of a model's configuration
// whole messages may be missing, and fields whose numbers are reserved.
func TestNumbers(t *testing.T) {
	text, err := os.ReadFile("testdata/triton.txt")
	if err != nil {
		t.Fatal(err)
	}
	theirs := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		theirs[strings.TrimSuffix(line, "\n")] = true
	}
	ours := map[string]bool{}
	messages := map[string]protoreflect.MessageDescriptor{}
	var message func(m protoreflect.MessageDescriptor)
	enums := func(prefix string, list protoreflect.EnumDescriptors) {
		for i := range list.Len() {
			e := list.Get(i)
			for k := range e.Values().Len() {
				v := e.Values().Get(k)
				ours[fmt.Sprintf("enum %s%s %s %d", prefix, e.Name(), v.Name(), v.Number())] = true
			}
		}
	}
	name := func(d protoreflect.Descriptor) string { return strings.TrimPrefix(string(d.FullName()), "inference.") }
	message = func(m protoreflect.MessageDescriptor) {
		messages[name(m)] = m
		ours["message "+name(m)] = true
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			kind, oneof := f.Kind().String(), "-"
			if f.Message() != nil {
				kind = name(f.Message())
			}
			if f.Enum() != nil {
				kind = name(f.Enum())
			}
			if f.ContainingOneof() != nil {
				oneof = string(f.ContainingOneof().Name())
			}
			ours[fmt.Sprintf("field %s %s %d %s %s %s", name(m), f.Name(), f.Number(), kind, f.Cardinality(), oneof)] = true
		}
		enums(name(m)+".", m.Enums())
		for i := range m.Messages().Len() {
			message(m.Messages().Get(i))
		}
	}
	for _, file := range []protoreflect.FileDescriptor{File_model_config_proto, File_grpc_service_proto} {
		for i := range file.Messages().Len() {
			message(file.Messages().Get(i))
		}
		enums("", file.Enums())
		stream := map[bool]string{true: "stream", false: "one"}
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			for k := range s.Methods().Len() {
				r := s.Methods().Get(k)
				ours[fmt.Sprintf("rpc %s %s %s %s %s %s", s.Name(), r.Name(), name(r.Input()), name(r.Output()), stream[r.IsStreamingClient()], stream[r.IsStreamingServer()])] = true
			}
		}
	}
	if len(ours) < 400 || len(theirs) < len(ours) {
		t.Fatalf("%d facts here, %d of tritonclient", len(ours), len(theirs))
	}
	for _, line := range slices.Sorted(maps.Keys(ours)) {
		if !theirs[line] {
			t.Errorf("tritonclient does not have: %s", line)
		}
	}
	for _, line := range slices.Sorted(maps.Keys(theirs)) {
		if ours[line] {
			continue
		}
		words := strings.Fields(line)
		switch m := messages[words[1]]; {
		case words[0] == "rpc" || m != nil && m.ParentFile() == File_grpc_service_proto:
			t.Errorf("missing: %s", line)
		case m != nil && words[0] == "field":
			var number protoreflect.FieldNumber
			if _, err := fmt.Sscan(words[3], &number); err != nil {
				t.Fatal(err)
			}
			if !m.ReservedRanges().Has(number) {
				t.Errorf("neither there nor reserved: %s", line)
			}
		}
	}
}
