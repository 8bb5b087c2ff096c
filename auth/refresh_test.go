package auth

const refreshChildDir = "AUTH_TEST_REFRESH_DIR"

func refreshChild(dir string) int { return 1 }
