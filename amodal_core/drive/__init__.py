"""The one room between messages and frames: the same for live nodes, bags and writers of drives."""
