package data

import (
	"errors"
	"testing"
)

func TestSetting(t *testing.T) {
	cause := errors.New("cell: want lstm, got gnu")
	err := Setting(cause)
	var input *InputError
	if !errors.As(err, &input) || !errors.Is(err, cause) || err.Error() != cause.Error() {
		t.Errorf("%v is not an input error with its cause", err)
	}
	if err := Setting(nil); err != nil {
		t.Error(err)
	}
}
