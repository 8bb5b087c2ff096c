package console

import "testing"

func TestParsedResourcesAndLabels(t *testing.T) {
	all, err := parseResources([]string{"a=model", "b=tcp"}, []string{"env=prod", "team="})
	if err != nil || len(all) != 2 || all[1].Kind != "tcp" || all[0].Labels["env"] != "prod" {
		t.Errorf("%+v, %v", all, err)
	}
	for _, bad := range [][2][]string{{{"a"}, nil}, {nil, nil}, {{"a=model"}, {"env"}}} {
		if _, err := parseResources(bad[0], bad[1]); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
}
