"""Looking at data of unknown kind, for `bmcli init`."""
