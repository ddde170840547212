"""What people look at: overlay, panel, video, contact sheets, the report."""
