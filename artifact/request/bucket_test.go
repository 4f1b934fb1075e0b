package request

import "testing"

func TestCheckBucket(t *testing.T) {
	for _, name := range []string{"abc", "team-data", "team.data.1", "1a2", "1.2.3.4.5", "a--b"} {
		if err := CheckBucket(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{
		"", "ab", "Abc", "a_b", "a/b", "a%2fb", "a..b", "a.-b", "a-.b", ".abc", "abc.", "-abc", "abc-", "1.2.3.4", "xn--abc", "abc-s3alias", "abc--ol-s3",
		"abc.mrap", "abc--use1-az4--x-s3", "abc--table-s3", "äbc", "abc\n", "a b", "a@b", "a:80", "a?b", "a#b",
		"a123456789012345678901234567890123456789012345678901234567890123",
	} {
		if err := CheckBucket(name); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
}
